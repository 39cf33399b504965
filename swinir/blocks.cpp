// The Swin transformer blocks of one residual group on a CPU: float32, in place, each window from load to store in the cache.
//
// A window is held channels first, (C, L) with its L tokens side by side: every step then works on whole vectors of tokens,
// whatever the number of channels or of channels per head - the linear layers, the LayerNorms (over rows), the scores
// (kept as keys x queries, so that softmax too runs over rows). Windows of a grid share no pixel, so each block writes where
// it read, and no roll, partition or reverse ever touches memory. Weights are as PyTorch has them, (out, in), with the
// LayerNorms' gains and the scale of the queries already multiplied in (blocks.py).

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

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

// A matrix of weights as it lies in memory: steps between its rows and between its columns.
struct Matrix {
    const float* data;
    int64_t row, column;
};

// For R rows from ``row`` and all tokens: out = w (rows, depth) @ in (depth, L) + start, through ``store(row, token, value)``.
template <int R, class Start, class Store>
inline void rows_of_product(Matrix w, const float* in, int depth, int row, Start start, Store store) {
    for (int token = 0; token < L; token += STRIP) {
        Floats sum[R][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[r][v] = start(row + r, token + v * WIDTH);
        const float* weights = w.data + row * w.row;
        for (int k = 0; k < depth; k++) {
            Floats x[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) x[v] = at(in + k * L + token + v * WIDTH);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[r][v] += weights[r * w.row + k * w.column] * x[v];
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

template <class Start, class Store>
inline void product(Matrix w, const float* in, int rows, int depth, Start start, Store store) {
    in_tiles(rows, [&]<int R>(int row) { rows_of_product<R>(w, in, depth, row, start, store); });
}

struct Block {  // pointers as blocks.py packs them, one block after another
    const float *qkv, *qkv_bias, *position, *proj, *proj_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
};

struct Shape {
    int64_t batch, channels, height, width, heads, window, hidden;
};

struct Scratch {  // one window on its way through a block
    float *x, *normal, *qkv, *scores, *attended, *hidden;
    explicit Scratch(const Shape& s) {
        int64_t sizes[] = {s.channels, s.channels, 3 * s.channels, L, s.channels, s.hidden};
        int64_t rows = 0;
        for (int64_t size : sizes) rows += size;
        memory = static_cast<float*>(std::aligned_alloc(64, rows * L * sizeof(float)));
        std::memset(memory, 0, rows * L * sizeof(float));  // of 7 x 7 windows the last tokens are never loaded
        float** names[] = {&x, &normal, &qkv, &scores, &attended, &hidden};
        float* next = memory;
        for (int i = 0; i < 6; next += sizes[i++] * L) *names[i] = next;
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
void attend(const float* q, const float* k, const float* v, const float* position, float* scores, float* out, int depth,
            int tokens) {
    alignas(64) float peak[L], share[L];
    for (float& each : peak) each = -3e38f;
    // Keys as rows, so that softmax too runs over rows; the highest score of each query is noted on the way.
    product({k, 1, L}, q, tokens, depth, [&](int key, int token) { return at(position + key * L + token); },
            [&](int key, int token, Floats value) {
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
    product({v, L, 1}, scores, depth, tokens, [](int, int) { return Floats{}; },
            [&](int d, int token, Floats value) { at(out + d * L + token) = value * at(share + token); });
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

void load(const Shape& s, const Place& place, const float* image, float* x) {
    for (int64_t c = 0; c < s.channels; c++, image += s.height * s.width, x += L)
        for (int64_t i = 0; i < s.window; i++) {
            copy(x + i * s.window, image + place.rows[i] + place.left, place.num_left);
            copy(x + i * s.window + place.num_left, image + place.rows[i] + place.middle, s.window - place.num_left);
        }
}

void store(const Shape& s, const Place& place, float* image, const float* x) {
    for (int64_t c = 0; c < s.channels; c++, image += s.height * s.width, x += L)
        for (int64_t i = 0; i < s.window; i++) {
            copy(image + place.rows[i] + place.left, x + i * s.window, place.num_left);
            copy(image + place.rows[i] + place.middle, x + i * s.window + place.num_left, s.window - place.num_left);
        }
}

void run_window(const Shape& s, const Block& block, const float* position, float* image, const Place& place, Scratch& scratch) {
    const int channels = s.channels, depth = s.channels / s.heads, hidden = s.hidden, tokens = s.window * s.window;
    load(s, place, image, scratch.x);
    normalize(scratch.x, scratch.normal, channels);
    product({block.qkv, channels, 1}, scratch.normal, 3 * channels, channels,
            [&](int row, int) { return all(block.qkv_bias[row]); },
            [&](int row, int token, Floats value) { at(scratch.qkv + row * L + token) = value; });
    for (int head = 0; head < s.heads; head++) {
        const float* q = scratch.qkv + head * depth * L;
        attend(q, q + channels * L, q + 2 * channels * L, position + head * L * L, scratch.scores,
               scratch.attended + head * depth * L, depth, tokens);
    }
    auto add_to_x = [&](int row, int token, Floats value) { at(scratch.x + row * L + token) += value; };
    product({block.proj, channels, 1}, scratch.attended, channels, channels, [&](int row, int) { return all(block.proj_bias[row]); },
            add_to_x);
    normalize(scratch.x, scratch.normal, channels);
    product({block.fc1, channels, 1}, scratch.normal, hidden, channels, [&](int row, int) { return all(block.fc1_bias[row]); },
            [&](int row, int token, Floats value) { at(scratch.hidden + row * L + token) = gelu(value); });
    product({block.fc2, hidden, 1}, scratch.hidden, channels, hidden, [&](int row, int) { return all(block.fc2_bias[row]); }, add_to_x);
    store(s, place, image, scratch.x);
}

}  // namespace

// All blocks of a group over ``image`` (batch, channels, height, width), in place; height and width are whole windows. Every
// second block is shifted, its ``position`` (4, heads, keys, queries) for interior, right, bottom and corner windows; the
// others' is (1, heads, keys, queries). The pointers of ``blocks`` are 64-byte aligned where they are read as vectors.
extern "C" void swinir_run_blocks(float* image, const int64_t* shape, const float* const* blocks, int num_blocks,
                                  int num_threads) {
    const Shape& s = *reinterpret_cast<const Shape*>(shape);
    const Block* each = reinterpret_cast<const Block*>(blocks);
    const int64_t rows = s.height / s.window, columns = s.width / s.window, windows = s.batch * rows * columns;
    std::vector<std::atomic<int64_t>> next(num_blocks);
    // Neighbours share cache lines: whole rows go to one thread where there are enough for all.
    const int64_t chunk = std::max<int64_t>(1, std::min(columns, windows / (4 * num_threads)));
    std::barrier<> finished(num_threads);
    auto work = [&] {
        Scratch scratch(s);
        for (int index = 0; index < num_blocks; index++) {
            const int64_t shift = index % 2 ? s.window / 2 : 0;
            for (int64_t start; (start = next[index].fetch_add(chunk)) < windows;) {
                for (int64_t i = start; i < std::min(start + chunk, windows); i++) {
                    const int64_t column = i % columns, row = i / columns % rows, picture = i / (columns * rows);
                    const int kind = shift ? (column == columns - 1) + 2 * (row == rows - 1) : 0;
                    run_window(s, each[index], each[index].position + kind * s.heads * L * L,
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
