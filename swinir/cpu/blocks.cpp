// The Swin transformer blocks of one residual group on a CPU, and their gradients, each window from load to store in the cache.
//
// Windows of a grid share no pixel, so each block may write where it read, and no roll, partition or reverse ever touches
// memory.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include "gradients.h"
#include "window.h"

namespace {

// The windows of a grid of pictures, row by row.
struct Grid {
    const Shape& s;
    int64_t shift, rows = s.height / s.window, columns = s.width / s.window, windows = s.batch * rows * columns;

    // Calls ``each(place, picture, kind)`` for some: where it lies, where its picture begins, which of the masks it needs.
    template <class Each>
    void in_windows(int64_t start, int64_t stop, Each each) const {
        for (int64_t i = start; i < stop; i++) {
            const int64_t column = i % columns, row = i / columns % rows, picture = i / (columns * rows);
            const int kind = shift ? (column == columns - 1) + 2 * (row == rows - 1) : 0;
            each(Place(s, row, column, shift), picture * s.channels * s.height * s.width, kind);
        }
    }
};

// Calls ``work(thread)`` in as many threads.
template <class Work>
void in_threads(int num_threads, Work work) {
    std::vector<std::thread> others;
    for (int i = 1; i < num_threads; i++) others.emplace_back(work, i);
    work(0);
    for (std::thread& other : others) other.join();
}

template <class Factor>
void run_blocks(const float* from, float* to, int64_t step, const Shape& s, const Block<Factor>* each, int num_blocks,
                int num_threads) {
    const Grid grids[] = {{s, 0}, {s, s.window / 2}};
    const int64_t windows = grids[0].windows;
    std::vector<std::atomic<int64_t>> next(num_blocks);
    // Neighbours share cache lines: whole rows go to one thread where there are enough for all.
    const int64_t chunk = std::max<int64_t>(1, std::min(grids[0].columns, windows / (4 * num_threads)));
    std::barrier<> finished(num_threads);
    in_threads(num_threads, [&](int) {
        [[maybe_unused]] const Multiplier<Factor> multiplier;
        Scratch<Factor> scratch(s);
        for (int index = 0; index < num_blocks; index++) {
            const float* in = index ? to + (index - 1) * step : from;
            for (int64_t start; (start = next[index].fetch_add(chunk)) < windows;)
                grids[index % 2].in_windows(start, std::min(start + chunk, windows),
                                            [&](const Place& place, int64_t picture, int kind) {
                    run_window<Factor>(s, each[index], each[index].position + kind * s.heads * L * L, in + picture,
                                       to + index * step + picture, place, scratch);
                });
            finished.arrive_and_wait();
        }
    });
}

template <class Factor>
void block_gradients(const float* from, const float* to, int64_t step, float* d_image, const Shape& s,
                     const Block<Factor>* each, const TurnedWeights<Factor>* turned, int num_blocks, float* gradients,
                     int64_t size, int num_threads) {
    const Grid grids[] = {{s, 0}, {s, s.window / 2}};
    const int64_t windows = grids[0].windows, sizes[] = {Gradients(s, gradients).size(1), Gradients(s, gradients).size(4)};
    std::barrier<> finished(num_threads);
    in_threads(num_threads, [&](int thread) {
        [[maybe_unused]] const Multiplier<Factor> multiplier;
        BackwardScratch<Factor> scratch(s);
        float* end = gradients + (thread + 1) * size;
        for (int index = num_blocks - 1; index >= 0; index--) {
            end -= sizes[index % 2];
            const Gradients mine(s, end);
            const float* in = index ? to + (index - 1) * step : from;
            // Always the same windows, so that sums are always rounded in the same way.
            grids[index % 2].in_windows(thread * windows / num_threads, (thread + 1) * windows / num_threads,
                                        [&](const Place& place, int64_t picture, int kind) {
                const int64_t masked = kind * mine.position_size;
                backward_window(s, each[index], turned[index], each[index].position + masked, in + picture, d_image + picture,
                                place, scratch, mine, mine.position + masked);
            });
            finished.arrive_and_wait();
        }
    });
}

}  // namespace

// All blocks of a group, at least one, from image to image (batch, height, width, channels), in whole windows: the first from
// ``from`` to ``to``, each further one from there to ``step`` floats on. Every second block is shifted, its ``position`` (4,
// heads, keys, queries) for interior, right, bottom and corner windows; the others' is (1, heads, keys, queries). The pointers
// of ``blocks`` are 64-byte aligned where they are read as vectors.
#define SWINIR_RUN_BLOCKS(NAME, FACTOR)                                                                                     \
    extern "C" void NAME(const float* from, float* to, int64_t step, const int64_t* shape, const void* const* blocks,       \
                         int num_blocks, int num_threads) {                                                                 \
        run_blocks(from, to, step, *reinterpret_cast<const Shape*>(shape), reinterpret_cast<const Block<FACTOR>*>(blocks),  \
                   num_blocks, num_threads);                                                                                \
    }

// The way back: ``from`` and ``to`` as above, with what came in and left; ``d_image``, the gradient of what left the last
// block, becomes that of what came in. ``turned`` are the blocks' weights as (in, out). What each thread adds to the gradients
// of the parameters goes to ``size`` floats of ``gradients``, block after block as Gradients has them: 0 at first, 64-byte
// aligned.
#define SWINIR_BLOCK_GRADIENTS(NAME, FACTOR)                                                                                \
    extern "C" void NAME(const float* from, const float* to, int64_t step, float* d_image, const int64_t* shape,            \
                         const void* const* blocks, const void* const* turned, int num_blocks, float* gradients,            \
                         int64_t size, int num_threads) {                                                                   \
        block_gradients(from, to, step, d_image, *reinterpret_cast<const Shape*>(shape),                                    \
                        reinterpret_cast<const Block<FACTOR>*>(blocks),                                                     \
                        reinterpret_cast<const TurnedWeights<FACTOR>*>(turned), num_blocks, gradients, size, num_threads);  \
    }

SWINIR_RUN_BLOCKS(swinir_run_blocks, float)
SWINIR_BLOCK_GRADIENTS(swinir_block_gradients, float)

#if defined(__AVX512BF16__)
// The same with weights in bfloat16, filled up with 0 to whole tiles: 32 rows by 32 columns.
SWINIR_RUN_BLOCKS(swinir_run_blocks_bf16, Pair)
SWINIR_BLOCK_GRADIENTS(swinir_block_gradients_bf16, Pair)

// Whether the above can be called.
extern "C" int swinir_multiplies_bf16() {
#if defined(SWINIR_TILES)
    return may_use_tiles();
#else
    return 1;
#endif
}
#endif
