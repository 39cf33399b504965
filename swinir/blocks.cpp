// The Swin transformer blocks of one residual group on a CPU, in place, each window from load to store in the cache.
//
// A window is held channels first, (C, L) with its L tokens side by side: every step then works on whole vectors of tokens,
// whatever the number of channels or of channels per head - the linear layers, the LayerNorms (over rows), the scores
// (kept as keys x queries, so that softmax too runs over rows). Windows of a grid share no pixel, so each block writes where
// it read, and no roll, partition or reverse ever touches memory. Weights are as PyTorch has them, (out, in), with the
// LayerNorms' gains and the scale of the queries already multiplied in (blocks.py).
//
// All is float32, but that products may take both of their factors as bfloat16 where the processor multiplies those at twice
// the rate (AVX-512 BF16). Its instruction adds two products to each float: factors then lie in pairs along the depth.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, VECTORS = 4;  // floats in a vector; vectors of tokens that a tile of accumulators spans
#elif defined(__AVX__)
constexpr int WIDTH = 8, VECTORS = 2;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, VECTORS = 4;
#else
constexpr int WIDTH = 4, VECTORS = 2;
#endif
constexpr int ROWS = 6;            // of a tile: ROWS * VECTORS accumulators fill the register file
constexpr int L = 64;              // tokens a window has room for: 8 x 8, or 7 x 7 and some that are never stored
constexpr int STRIP = VECTORS * WIDTH;

typedef float Floats __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Floats& at(float* p) { return *reinterpret_cast<Floats*>(p); }
inline const Floats& at(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline const Ints& at(const int32_t* p) { return *reinterpret_cast<const Ints*>(p); }
inline Floats all(float value) { return value - Floats{}; }
inline Floats largest(Floats a, Floats b) { return a > b ? a : b; }

// e^x for x <= 0, to 1e-7 of it: 2^n * e^r with |r| <= ln2 / 2, a polynomial fitted for the least relative error.
inline Floats exponential(Floats x) {
    x = largest(x, all(-87.0f));
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number in the low bits
    Floats shifted = x * 1.44269504f + ROUND;
    Floats r = x - (shifted - ROUND) * 0.693147181f;
    Floats p = r * 0.00829765194f + 0.0419153818f;
    p = p * r + 0.166675748f;
    p = p * r + 0.499988949f;
    p = p * r + 0.999999692f;
    p = p * r + 1.00000007f;
    Ints power = (reinterpret_cast<Ints>(shifted) + 127) << 23;
    return p * reinterpret_cast<Floats>(power);
}

// x * Phi(x), exact GELU. erf by Abramowitz and Stegun 7.1.26, 1.5e-7 at most from the truth.
inline Floats gelu(Floats x) {
    Floats z = x * 0.70710678f;
    Floats size = z < 0.0f ? -z : z;
    Floats t = 1.0f / (1.0f + 0.3275911f * size);
    Floats p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    Floats tail = 0.5f * p * t * exponential(-z * z);  // (1 - erf |z|) / 2
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

// Factors of products as floats: nothing to do.
constexpr int deep(int depth, const float*) { return depth; }
inline Floats multiply_add(Floats sum, float w, Floats x) { return sum + w * x; }
inline const float* by_depth(const float* in, int, float*) { return in; }
inline const float* by_token(const float* in, int, float*) { return in; }

#if defined(__AVX512BF16__)
typedef int32_t Pair;  // two bfloat16, the first of them in the low half

constexpr int deep(int depth, const Pair*) { return (depth + 1) / 2; }

inline Floats multiply_add(Floats sum, Pair w, Ints x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)(_mm512_set1_epi32(w)));
}

// (rows, L) floats to pairs of neighbouring rows; beside an odd last row lies 0.
const Pair* by_depth(const float* in, int rows, Pair* out) {
    alignas(64) static constexpr int16_t ZIP[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i zip = _mm512_load_si512(ZIP);
    for (int row = 0; row < rows; row += 2)
        for (int token = 0; token < L; token += WIDTH) {
            const float* first = in + row * L + token;
            const __m512bh both = _mm512_cvtne2ps_pbh(row + 1 < rows ? at(first + L) : Floats{}, at(first));
            _mm512_store_si512(out + row / 2 * L + token, _mm512_permutexvar_epi16(zip, (__m512i)both));
        }
    return out;
}

// (rows, L) floats to pairs of neighbouring tokens, (rows, L / 2).
const Pair* by_token(const float* in, int rows, Pair* out) {
    for (int i = 0; i < rows * L; i += 2 * WIDTH)
        _mm512_store_si512(out + i / 2, (__m512i)_mm512_cvtne2ps_pbh(at(in + i + WIDTH), at(in + i)));
    return out;
}
#endif

// A matrix of factors as it lies in memory: steps between its rows and between its columns.
template <class Factor, int COLUMN>
struct Matrix {
    const Factor* data;
    int64_t row;
};

// For R rows from ``row`` and all tokens: out = w (rows, depth) @ in (depth, L) + start, through ``store(row, token, value)``.
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
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) store(row + r, token + v * WIDTH, sum[r][v]);
    }
}

// Calls ``some.operator()<R>(row)`` for all rows, ROWS at a time, the last two times about half of what is left each.
template <class Some>
inline void in_tiles(int rows, Some some) {
    for (int row = 0; row < rows;) {
        const int left = rows - row, take = left >= 2 * ROWS || left == ROWS ? ROWS : left > ROWS ? left / 2 : left;
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
    in_tiles(rows, [&]<int R>(int row) { rows_of_product<R>(w, in, depth, row, start, store); });
}

template <class Factor>
struct Block {  // pointers as blocks.py packs them, one block after another
    const Factor* qkv;
    const float *qkv_bias, *position;
    const Factor* proj;
    const float* proj_bias;
    const Factor* fc1;
    const float* fc1_bias;
    const Factor* fc2;
    const float* fc2_bias;
};

struct Shape {
    int64_t batch, channels, height, width, heads, window, hidden;
};

struct Scratch {  // one window on its way through a block; the last two are for factors
    float *x, *normal, *qkv, *scores, *attended, *hidden, *weights, *in;
    Scratch(const Shape& s, bool paired) {
        const int64_t depth = paired ? s.channels / s.heads : 0, most = paired ? std::max({s.channels, s.hidden, int64_t(L)}) : 0;
        int64_t sizes[] = {s.channels, s.channels, 3 * s.channels, L, s.channels, s.hidden, (depth + 1) / 2, (most + 1) / 2};
        int64_t rows = 0;
        for (int64_t size : sizes) rows += size;
        memory = static_cast<float*>(std::aligned_alloc(64, rows * L * sizeof(float)));
        float** names[] = {&x, &normal, &qkv, &scores, &attended, &hidden, &weights, &in};
        float* next = memory;
        for (int i = 0; i < 8; next += sizes[i++] * L) *names[i] = next;
    }
    ~Scratch() { std::free(memory); }
    Scratch(const Scratch&) = delete;

   private:
    float* memory;
};

// LayerNorm over the channels, without gain and bias.
void normalize(const float* x, float* out, int channels) {
    for (int token = 0; token < L; token += WIDTH) {
        Floats sum{}, squares{};
        for (int c = 0; c < channels; c++) sum += at(x + c * L + token);
        Floats mean = sum / float(channels);
        for (int c = 0; c < channels; c++) {
            Floats d = at(x + c * L + token) - mean;
            squares += d * d;
        }
        Floats scale = squares / float(channels) + 1e-5f;
        for (int i = 0; i < WIDTH; i++) scale[i] = 1.0f / __builtin_sqrtf(scale[i]);
        for (int c = 0; c < channels; c++) at(out + c * L + token) = (at(x + c * L + token) - mean) * scale;
    }
}

// out (depth, L) = softmax(q k + position) v for one head; q, k and v are (depth, L).
template <class Factor>
void attend(const float* q, const float* k, const float* v, const float* position, Scratch& scratch, float* out, int depth,
            int tokens) {
    alignas(64) float peaks[L], shares[L];
    float *scores = scratch.scores, *peak = peaks, *share = shares;
    Factor *weights = reinterpret_cast<Factor*>(scratch.weights), *in = reinterpret_cast<Factor*>(scratch.in);
    for (float& each : peaks) each = -3e38f;
    // Keys as rows, so that softmax too runs over rows; the highest score of each query is noted on the way.
    product(Matrix<Factor, L>{by_depth(k, depth, weights), 1}, by_depth(q, depth, in), tokens, depth,
            [=](int key, int token) { return at(position + key * L + token); },
            [=](int key, int token, Floats value) {
                at(scores + key * L + token) = value;
                at(peak + token) = largest(at(peak + token), value);
            });
    for (int token = 0; token < L; token += WIDTH) {
        Floats sum{};
        for (int j = 0; j < tokens; j++) {
            Floats e = exponential(at(scores + j * L + token) - at(peak + token));
            at(scores + j * L + token) = e;
            sum += e;
        }
        at(share + token) = 1.0f / sum;
    }
    product(Matrix<Factor, 1>{by_token(v, depth, weights), deep(L, weights)}, by_depth(scores, tokens, in), depth, tokens,
            [](int, int) { return Floats{}; },
            [=](int d, int token, Floats value) { at(out + d * L + token) = value * at(share + token); });
}

// Where a window lies in the image. Each of its rows is two halves side by side or, in the last column of a shifted grid,
// apart, as the rolled image wraps around between them; a shift is half a window, rounded down.
struct Place {
    int64_t rows[8], left, middle, num_left;
};

Place place_of(const Shape& s, int64_t window_row, int64_t window_column, int64_t shift) {
    Place place;
    for (int64_t i = 0; i < s.window; i++) place.rows[i] = (window_row * s.window + i + shift) % s.height * s.width;
    place.num_left = s.window - s.window / 2;
    place.left = window_column * s.window + shift;
    place.middle = (place.left + place.num_left) % s.width;
    return place;
}

inline void copy(float* to, const float* from, int64_t count) {
    if (count == 4)  // of a window of 8: one load, one store
        std::memcpy(to, from, 4 * sizeof(float));
    else
        std::memcpy(to, from, count * sizeof(float));
}

// Called for floats and for pairs, and still to be part of either: as functions they cost narrow networks 4 %.
[[gnu::always_inline]] inline void load(const Shape& s, const Place& place, const float* image, float* x) {
    for (int64_t c = 0; c < s.channels; c++, image += s.height * s.width, x += L) {
        for (int64_t i = 0; i < s.window; i++) {
            copy(x + i * s.window, image + place.rows[i] + place.left, place.num_left);
            copy(x + i * s.window + place.num_left, image + place.rows[i] + place.middle, s.window - place.num_left);
        }
        // The last pair of 7 x 7 tokens holds one too many, times 0: it must not be what is not finite of another window.
        for (int64_t token = s.window * s.window; token < L; token++) x[token] = 0;
    }
}

[[gnu::always_inline]] inline void store(const Shape& s, const Place& place, float* image, const float* x) {
    for (int64_t c = 0; c < s.channels; c++, image += s.height * s.width, x += L)
        for (int64_t i = 0; i < s.window; i++) {
            copy(image + place.rows[i] + place.left, x + i * s.window, place.num_left);
            copy(image + place.rows[i] + place.middle, x + i * s.window + place.num_left, s.window - place.num_left);
        }
}

template <class Factor>
void run_window(const Shape& s, const Block<Factor>& block, const float* position, float* image, const Place& place,
                Scratch& scratch) {
    const int channels = s.channels, depth = s.channels / s.heads, hidden = s.hidden, tokens = s.window * s.window;
    Factor* in = reinterpret_cast<Factor*>(scratch.in);
    auto linear = [&](const Factor* w, const float* bias, const float* x, int rows, int columns, auto store) {
        product(Matrix<Factor, 1>{w, deep(columns, w)}, by_depth(x, columns, in), rows, columns,
                [=](int row, int) { return all(bias[row]); }, store);
    };
    auto add_to_x = [x = scratch.x](int row, int token, Floats value) { at(x + row * L + token) += value; };
    load(s, place, image, scratch.x);
    normalize(scratch.x, scratch.normal, channels);
    linear(block.qkv, block.qkv_bias, scratch.normal, 3 * channels, channels,
           [qkv = scratch.qkv](int row, int token, Floats value) { at(qkv + row * L + token) = value; });
    for (int head = 0; head < s.heads; head++) {
        const float* q = scratch.qkv + head * depth * L;
        attend<Factor>(q, q + channels * L, q + 2 * channels * L, position + head * L * L, scratch,
                       scratch.attended + head * depth * L, depth, tokens);
    }
    linear(block.proj, block.proj_bias, scratch.attended, channels, channels, add_to_x);
    normalize(scratch.x, scratch.normal, channels);
    linear(block.fc1, block.fc1_bias, scratch.normal, hidden, channels,
           [out = scratch.hidden](int row, int token, Floats value) { at(out + row * L + token) = gelu(value); });
    linear(block.fc2, block.fc2_bias, scratch.hidden, channels, hidden, add_to_x);
    store(s, place, image, scratch.x);
}

template <class Factor>
void run_blocks(float* image, const Shape& s, const Block<Factor>* each, int num_blocks, int num_threads) {
    const int64_t rows = s.height / s.window, columns = s.width / s.window, windows = s.batch * rows * columns;
    std::vector<std::atomic<int64_t>> next(num_blocks);
    // Neighbours share cache lines: whole rows go to one thread where there are enough for all.
    const int64_t chunk = std::max<int64_t>(1, std::min(columns, windows / (4 * num_threads)));
    std::barrier<> finished(num_threads);
    auto work = [&] {
        Scratch scratch(s, !std::is_same_v<Factor, float>);
        for (int index = 0; index < num_blocks; index++) {
            const int64_t shift = index % 2 ? s.window / 2 : 0;
            for (int64_t start; (start = next[index].fetch_add(chunk)) < windows;) {
                for (int64_t i = start; i < std::min(start + chunk, windows); i++) {
                    const int64_t column = i % columns, row = i / columns % rows, picture = i / (columns * rows);
                    const int kind = shift ? (column == columns - 1) + 2 * (row == rows - 1) : 0;
                    run_window<Factor>(s, each[index], each[index].position + kind * s.heads * L * L,
                               image + picture * s.channels * s.height * s.width, place_of(s, row, column, shift), scratch);
                }
            }
            finished.arrive_and_wait();
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < num_threads; i++) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
}

}  // namespace

// All blocks of a group over ``image`` (batch, channels, height, width), in place; height and width are whole windows. Every
// second block is shifted, its ``position`` (4, heads, keys, queries) for interior, right, bottom and corner windows; the
// others' is (1, heads, keys, queries). The pointers of ``blocks`` are 64-byte aligned where they are read as vectors.
extern "C" void swinir_run_blocks(float* image, const int64_t* shape, const void* const* blocks, int num_blocks,
                                  int num_threads) {
    run_blocks(image, *reinterpret_cast<const Shape*>(shape), reinterpret_cast<const Block<float>*>(blocks), num_blocks,
               num_threads);
}

#if defined(__AVX512BF16__)
// The same with weights in bfloat16, rows of an even length, 0 beside an odd last column.
extern "C" void swinir_run_blocks_bf16(float* image, const int64_t* shape, const void* const* blocks, int num_blocks,
                                       int num_threads) {
    run_blocks(image, *reinterpret_cast<const Shape*>(shape), reinterpret_cast<const Block<Pair>*>(blocks), num_blocks,
               num_threads);
}
#endif
