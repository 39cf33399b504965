// Products of a small matrix with the tokens of a window, w (rows, depth) @ in (depth, L), for what the processor multiplies.
//
// Factors are float; or bfloat16 in pairs along the depth where an instruction adds two of their products to each float
// (AVX-512 BF16) or a matrix unit multiplies tiles of them (AMX). Sums are float32 in all three.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define SWINIR_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int ROWS = 6;         // of a block: ROWS * VECTORS accumulators fill the register file
constexpr int STRIP = VECTORS * WIDTH;
constexpr int DEPTH_STEP = 32;  // that the rows of weights in bfloat16 are filled up to with 0, and in tiles all factors

constexpr int whole_pairs(int depth) { return (depth + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP / 2; }

// A matrix of factors as it lies in memory: steps between its rows and between its columns.
template <class Factor, int COLUMN>
struct Matrix {
    const Factor* data;
    int64_t row;
};

// What a thread holds while it multiplies.
template <class Factor>
struct Multiplier {};

// Factors as floats: they lie as they are.
constexpr int deep(int depth, const float*) { return depth; }
constexpr int row_of_weights(int columns, const float*) { return columns; }
inline Floats multiply_add(Floats sum, float w, Floats x) { return sum + w * x; }
inline const float* by_depth(const float* in, int, float*) { return in; }
inline Matrix<float, 1> by_token(const float* in, int, float*) { return {in, L}; }
inline Matrix<float, L> turned(const float* in, int, float*) { return {in, 1}; }
inline float* row_of(float* in, int row) { return in + row * L; }
inline const float* row_of(const float* in, int row) { return in + row * L; }
inline Floats power_of_2(const float*, Floats y) { return power_of_2(y); }
inline Floats gelu_for(const float*, Floats x) { return gelu(x); }
inline void put(float* out, int row, int token, Floats first, Floats second) {
    at(out + row * L + token) = first;
    at(out + (row + 1) * L + token) = second;
}
struct TwoRows {
    Floats first, second;
};
inline TwoRows get(const float* in, int row, int token) { return {at(in + row * L + token), at(in + (row + 1) * L + token)}; }
constexpr int row_by_token(const float*) { return L; }
inline void put_by_token(float* out, int row, int token, Floats x) { at(out + row * L + token) = x; }

#if defined(__AVX512BF16__)
typedef int32_t Pair;  // two bfloat16, the first of them in the low half

constexpr int row_of_weights(int columns, const Pair*) { return whole_pairs(columns); }

#if defined(SWINIR_TILES)
constexpr int deep(int depth, const Pair*) { return whole_pairs(depth); }
#else
constexpr int deep(int depth, const Pair*) { return (depth + 1) / 2; }

inline Floats multiply_add(Floats sum, Pair w, Ints x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)(_mm512_set1_epi32(w)));
}
#endif

// Pairs of the neighbouring rows ``first`` and ``second``.
inline __m512i zipped(Floats first, Floats second) {
    alignas(64) static constexpr int16_t ZIP[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_load_si512(ZIP), (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

inline Pair* row_of(Pair* in, int row) { return in + row / 2 * L; }
inline const Pair* row_of(const Pair* in, int row) { return in + row / 2 * L; }
inline Floats power_of_2(const Pair*, Floats y) { return rough_power_of_2(y); }
inline Floats gelu_for(const Pair*, Floats x) { return rough_gelu(x); }

inline void put(Pair* out, int row, int token, Floats first, Floats second) {
    _mm512_store_si512(out + row / 2 * L + token, zipped(first, second));
}

// What ``put`` has put, rounded.
inline TwoRows get(const Pair* in, int row, int token) {
    const Ints pairs = at(in + row / 2 * L + token);
    return {(Floats)(pairs << 16), (Floats)(pairs >> 16 << 16)};
}

constexpr int row_by_token(const Pair*) { return L / 2; }
inline void put_by_token(Pair* out, int row, int token, Floats x) {
    _mm256_store_si256((__m256i*)(out + row * (L / 2) + token / 2), (__m256i)_mm512_cvtneps_pbh(x));
}

// The pairs of ``row`` and the next of (rows, L) floats; 0 beside an odd last row, and below it.
inline __m512i pairs_of(const float* in, int rows, int row, int token) {
    return zipped(row < rows ? at(in + row * L + token) : Floats{}, row + 1 < rows ? at(in + (row + 1) * L + token) : Floats{});
}

// (rows, L) floats to pairs of neighbouring rows.
const Pair* by_depth(const float* in, int rows, Pair* out) {
    for (int pair = 0; pair < deep(rows, out); pair++)
        for (int token = 0; token < L; token += WIDTH)
            _mm512_store_si512(out + pair * L + token, pairs_of(in, rows, 2 * pair, token));
    return out;
}

// (rows, L) floats to pairs of neighbouring tokens, (rows, L / 2).
Matrix<Pair, 1> by_token(const float* in, int rows, Pair* out) {
    for (int i = 0; i < rows * L; i += 2 * WIDTH)
        _mm512_store_si512(out + i / 2, (__m512i)_mm512_cvtne2ps_pbh(at(in + i + WIDTH), at(in + i)));
    return {out, L / 2};
}

#if !defined(SWINIR_TILES)
// (rows, L) as the matrix (L, rows).
inline Matrix<Pair, L> turned(const float* in, int rows, Pair* out) { return {by_depth(in, rows, out), 1}; }
inline Matrix<Pair, L> turned(const Pair* in, int, Pair*) { return {in, 1}; }
#endif
#endif

// For R rows from ``row`` and all tokens: w (rows, depth) @ in (depth, L) + start, two rows at a time, through
// ``store(row, token, first, second)``. An odd last row comes twice: where that is stored there is room for one more.
template <int R, class Factor, int COLUMN, class Start, class Store>
inline void rows_of_product(Matrix<Factor, COLUMN> w, const Factor* in, int depth, int row, Start start, Store store) {
    for (int token = 0; token < L; token += STRIP) {
        Floats sum[R][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = start(row + r, token + v * WIDTH);
        const Factor* weights = w.data + row * w.row;
        for (int k = 0; k < deep(depth, in); k++) {
            std::remove_cvref_t<decltype(at(in))> x[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) x[v] = at(in + k * L + token + v * WIDTH);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[r][v] = multiply_add(sum[r][v], weights[r * w.row + k * COLUMN], x[v]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r += 2)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) store(row + r, token + v * WIDTH, sum[r][v], sum[std::min(r + 1, R - 1)][v]);
    }
}

// Calls ``some.operator()<R>(row)`` for all rows, ROWS at a time, the last two times about half of what is left each; an even
// number but for the last.
template <class Some>
inline void in_blocks(int rows, Some some) {
    for (int row = 0; row < rows;) {
        const int left = rows - row, take = left >= 2 * ROWS || left == ROWS ? ROWS : left > ROWS ? (left + 2) / 4 * 2 : left;
        switch (take) {
            case 1: some.template operator()<1>(row); break;
            case 2: some.template operator()<2>(row); break;
            case 3: some.template operator()<3>(row); break;
            case 4: some.template operator()<4>(row); break;
            case 5: some.template operator()<5>(row); break;
            default: some.template operator()<ROWS>(row);
        }
        row += take;
    }
}

template <class Factor, int COLUMN, class Start, class Store>
inline void product(Matrix<Factor, COLUMN> w, const Factor* in, int rows, int depth, Start start, Store store) {
    in_blocks(rows, [&]<int R>(int row) { rows_of_product<R>(w, in, depth, row, start, store); });
}

#if defined(SWINIR_TILES)
constexpr int TILE = 16;  // rows of a tile; of 64 bytes each: 16 floats or 16 pairs

// GCC does not know that tiles and their configuration are loaded from memory that it has still to write to.
inline void all_written() { asm volatile("" ::: "memory"); }

// Whether the kernel lets this process use tiles; they are large, and have to be asked for.
bool may_use_tiles() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

// Eight whole tiles for the calling thread. As they were before afterwards: oneDNN may remember how it configured them.
template <>
class Multiplier<Pair> {
    alignas(64) uint8_t before[64];

   public:
    Multiplier() {
        _tile_storeconfig(before);
        alignas(64) uint8_t whole[64] = {1};
        for (int i = 0; i < 8; i++) whole[16 + 2 * i] = 64, whole[48 + i] = TILE;
        all_written();
        _tile_loadconfig(whole);
    }
    ~Multiplier() {
        all_written();
        _tile_loadconfig(before);
    }
    Multiplier(const Multiplier&) = delete;
};

typedef float Square[2 * TILE][2 * TILE];  // of sums: four tiles

// The sums for two tiles of rows from ``row`` and two of tokens; ``w`` and ``in`` hold whole tiles, filled up with 0 in depth.
// Calls ``meanwhile(step)`` after every 32 of the depth.
template <class Meanwhile>
inline void multiply(Matrix<Pair, 1> w, const Pair* in, int steps, int row, int token, Square& sums, Meanwhile meanwhile) {
    constexpr int BYTES = sizeof sums[0], IN_BYTES = L * sizeof(Pair);
    const int w_bytes = w.row * sizeof(Pair);
    const Pair *upper = w.data + row * w.row, *left = in + token;
    const Pair *lower = upper + TILE * w.row, *right = left + TILE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int step = 0; step < steps; step++, upper += TILE, lower += TILE, left += TILE * L, right += TILE * L) {
        _tile_loadd(4, upper, w_bytes);
        _tile_loadd(6, left, IN_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right, IN_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, lower, w_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        meanwhile(step);
    }
    _tile_stored(0, sums[0], BYTES);
    _tile_stored(1, sums[0] + TILE, BYTES);
    _tile_stored(2, sums[TILE], BYTES);
    _tile_stored(3, sums[TILE] + TILE, BYTES);
}

// What is to be done with the sums of a square is done while the next one is multiplied, some rows after each of its steps: the
// processor looks no further ahead than that, and would have its matrix unit and the rest wait for each other.
template <class Start, class Store>
inline void product(Matrix<Pair, 1> w, const Pair* in, int rows, int depth, Start start, Store store) {
    alignas(64) Square squares[2];
    const int steps = deep(depth, in) / TILE, rows_in_step = (2 * TILE + 2 * steps - 1) / (2 * steps) * 2;
    const int num_squares = 2 * ((rows + 2 * TILE - 1) / (2 * TILE));
    auto finish = [&](int square, int first, int stop) {
        const int row = square / 2 * 2 * TILE, token = square % 2 * 2 * TILE;
        const Square& sums = squares[square % 2];
        const int last = std::min(2 * TILE, rows - row) - 1;
        for (int r = first; r <= std::min(last, stop - 1); r += 2)
#pragma GCC unroll 2
            for (int v = 0; v < 2 * TILE; v += WIDTH) {
                auto value = [&](int r) { return at(sums[r] + v) + start(row + r, token + v); };
                store(row + r, token + v, value(r), value(std::min(r + 1, last)));
            }
    };
    all_written();
    for (int square = 0; square < num_squares; square++)
        multiply(w, in, steps, square / 2 * 2 * TILE, square % 2 * 2 * TILE, squares[square % 2], [&](int step) {
            if (square) finish(square - 1, step * rows_in_step, (step + 1) * rows_in_step);
        });
    finish(num_squares - 1, 0, 2 * TILE);
}

inline __m512i pairs_of(const Pair* in, int rows, int row, int token) {
    return _mm512_maskz_load_epi32(row < rows ? 0xffff : 0, in + row / 2 * L + token);
}

// (rows, L) floats, or an even number of rows in pairs, as the matrix (L, rows).
template <class In>
Matrix<Pair, 1> turned(const In* in, int rows, Pair* out) {
    const int pairs = deep(rows, out);
    for (int pair = 0; pair < pairs; pair += TILE)
        for (int token = 0; token < L; token += TILE) {
            __m512i square[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) square[i] = pairs_of(in, rows, 2 * (pair + i), token);
            transpose(square);
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) _mm512_store_si512(out + (token + i) * pairs + pair, square[i]);
        }
    return {out, pairs};
}
#endif

}  // namespace
