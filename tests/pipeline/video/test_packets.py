"""Packet files, and the order of presentation in them."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.assemble import presentation_ranks
from pipeline.video.packets import BATCH_BYTES, PacketWriter, StoredPacket, read_packets, reorder_depth


def test_packets_come_back_as_they_went_in(tmp_path) -> None:
    packets = [
        StoredPacket(-5, True, b"a" * (BATCH_BYTES + 1)),
        StoredPacket(2**40, False, b""),
        StoredPacket(7, False, b"xyz"),
    ]
    writer = PacketWriter(tmp_path / "p.arrow")
    for packet in packets:
        writer.write(packet)
    writer.close()
    assert list(read_packets(tmp_path / "p.arrow")) == packets


def test_reordering_of_b_frames() -> None:
    assert reorder_depth([0, 1, 2]) == 0
    assert reorder_depth([0, 3, 1, 2]) == 1
    assert reorder_depth([0, 4, 2, 1, 3]) == 2
    assert presentation_ranks([0, 40, 20, 10, 30]).tolist() == [0, 4, 2, 1, 3]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40, unique=True))
def test_delayed_by_the_depth_no_packet_is_decoded_after_it_is_shown(pts) -> None:
    depth, shown = reorder_depth(pts), sorted(pts)
    for i, time in enumerate(pts):
        dts = shown[i - depth] if i >= depth else shown[0] - (depth - i)
        assert dts <= time
