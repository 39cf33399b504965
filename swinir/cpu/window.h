// A window of tokens on its way through a Swin transformer block.
//
// It is held channels first, (C, L) with its L tokens side by side: every step then works on whole vectors of tokens, whatever
// the number of channels or of channels per head - the linear layers, the LayerNorms (over rows), the scores (kept as keys x
// queries, so that softmax too runs over rows). Weights are as PyTorch has them, (out, in), with the LayerNorms' gains and the
// scale of the queries already multiplied in (blocks.py); scores are powers of 2.
//
// All is float32, but that products may take both of their factors as bfloat16 where the processor multiplies those faster, and
// what is a factor of the next product alone is then stored as such (products.h).

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "products.h"

namespace {

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
    int64_t batch, height, width, channels, heads, window, hidden;
};

template <class Factor>
struct Scratch {  // one window on its way through a block; where nothing is written there is 0, for whole tiles of factors
    float* x;
    Factor *qkv, *attended, *normal, *hidden, *weights;

    explicit Scratch(const Shape& s) {
        constexpr bool paired = !std::is_same_v<Factor, float>;
        auto rows_of = [](int64_t rows) { return paired ? whole_pairs(rows) : rows + 1; };
        size_of_keys = paired ? whole_pairs(s.channels / s.heads) * L : 0;
        const int64_t sizes[] = {(s.channels + WIDTH) * L, rows_of(3 * s.channels) * L + DEPTH_STEP * L, rows_of(s.channels) * L,
                                 rows_of(s.channels) * L, rows_of(s.hidden) * L, rows_of(L) * L, 2 * size_of_keys};
        int64_t size = 0;
        for (int64_t each : sizes) size += each;
        memory = static_cast<float*>(std::aligned_alloc(64, size * sizeof(float)));
        std::memset(memory, 0, size * sizeof(float));
        float* next = memory;
        auto take = [&, i = 0](auto*& part) mutable {
            part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(next);
            next += sizes[i++];
        };
        take(x), take(qkv), take(attended), take(normal), take(hidden), take(weights), take(keys);
    }
    ~Scratch() { std::free(memory); }
    Scratch(const Scratch&) = delete;
    Factor* keys_of(int head) const { return keys + head % 2 * size_of_keys; }

   private:
    float* memory;
    Factor* keys;
    int64_t size_of_keys;
};

// LayerNorm over the channels, without gain and bias; ``scales`` (L), where wanted, are what each token was multiplied by.
template <class Factor>
void normalize(const float* x, Factor* out, int channels, float* scales = nullptr) {
    for (int token = 0; token < L; token += STRIP) {  // some vectors at once: a sum has to wait for the one before
        Floats mean[VECTORS]{}, scale[VECTORS]{};
        auto value = [=](int c, int v) { return at(x + c * L + token + v * WIDTH); };
        for (int c = 0; c < channels; c++)
            for (int v = 0; v < VECTORS; v++) mean[v] += value(c, v);
        for (int v = 0; v < VECTORS; v++) mean[v] /= float(channels);
        for (int c = 0; c < channels; c++)
            for (int v = 0; v < VECTORS; v++) {
                Floats d = value(c, v) - mean[v];
                scale[v] += d * d;
            }
        for (int v = 0; v < VECTORS; v++)
            for (int i = 0; i < WIDTH; i++) scale[v][i] = 1.0f / __builtin_sqrtf(scale[v][i] / float(channels) + 1e-5f);
        for (int v = 0; scales && v < VECTORS; v++) at(scales + token + v * WIDTH) = scale[v];
        for (int c = 0; c < channels; c += 2)
            for (int v = 0; v < VECTORS; v++) {
                auto normal = [&](int c) { return (value(c, v) - mean[v]) * scale[v]; };
                put(out, c, token + v * WIDTH, normal(c), normal(std::min(c + 1, channels - 1)));
            }
    }
}

// Two rows of queries, keys and values, as the factors that they are in products: values by tokens, the others by depth.
template <class Factor>
inline void put_qkv(Factor* qkv, int channels, int row, int token, Floats first, Floats second) {
    if (row < 2 * channels) {
        put(qkv, row, token, first, second);
        return;
    }
    Factor* values = row_of(qkv, 2 * channels) + (row - 2 * channels) * row_by_token(qkv);
    put_by_token(values, 0, token, first);
    put_by_token(values, 1, token, second);
}

// Queries, keys and values of a head. Behind its own the rows of others may be read as well, up to whole tiles: those of the
// queries are multiplied by 0, and what those of the values give is left.
template <class Factor>
struct Head {
    const Factor* queries;
    decltype(turned(static_cast<const Factor*>(nullptr), 0, static_cast<Factor*>(nullptr))) keys;
    Matrix<Factor, 1> values;

    Head(const Factor* qkv, int channels, int depth, int head, Factor* keys)
        : queries(row_of(qkv, head * depth)),
          keys(turned(row_of(qkv, channels + head * depth), depth, keys)),
          values{row_of(qkv, 2 * channels) + head * depth * row_by_token(qkv), row_by_token(qkv)} {}
};

// weights (keys, queries) = 2^(k q + position), and in ``shares`` one over their sums. A softmax needs the highest score taken
// off only where else it would leave the range of floats; the sums then say so, and all is done again.
template <class Factor>
void score(const Head<Factor>& head, const float* position, int depth, int keys, Factor* weights, float* shares) {
    alignas(64) float tops[L], sums[L]{};
    float *top = tops, *sum = sums;
    auto scores = [&](auto store) {
        product(head.keys, head.queries, keys, depth, [=](int key, int token) { return at(position + key * L + token); }, store);
    };
    auto weigh = [=](int key, int token, Floats first, Floats second) {
        first = power_of_2(weights, first), second = power_of_2(weights, second);
        at(sum + token) += first + second;
        put(weights, key, token, first, second);
    };
    scores(weigh);
    if (!std::all_of(sums, sums + L, [](float sum) { return 1e-18f < sum && sum < 1e18f; })) {
        for (int i = 0; i < L; i++) tops[i] = -3e38f, sums[i] = 0;
        scores([=](int, int token, Floats first, Floats second) {
            at(top + token) = largest(at(top + token), largest(first, second));
        });
        scores([=](int key, int token, Floats first, Floats second) {
            weigh(key, token, first - at(top + token), second - at(top + token));
        });
    }
    for (int token = 0; token < L; token += WIDTH) at(shares + token) = 1.0f / at(sums + token);
}

// Where the tokens of a window lie in the image, in floats; a shifted grid wraps around at the right and the bottom.
struct Place {
    int64_t pixels[L]{};

    Place(const Shape& s, int64_t window_row, int64_t window_column, int64_t shift) {
        int64_t* pixel = pixels;
        for (int64_t i = 0; i < s.window; i++) {
            const int64_t row = (window_row * s.window + i + shift) % s.height * s.width;
            for (int64_t j = 0; j < s.window; j++)
                *pixel++ = (row + (window_column * s.window + j + shift) % s.width) * s.channels;
        }
    }
};

// Calls ``each(token, channel, mask)`` for squares of 16 tokens and 16 channels; the mask is of the channels that there are.
#if defined(__AVX512F__)
template <class Each>
inline void in_squares(int channels, Each each) {
    for (int c = 0; c < channels; c += WIDTH)
        for (int token = 0; token < L; token += WIDTH) each(token, c, __mmask16((1 << std::min(WIDTH, channels - c)) - 1));
}
#endif

// Pixels with their channels side by side to (C, L). Beyond the 49 tokens of 7 x 7 lies 0: it is multiplied by 0, and must not
// be what is not finite of another window.
void load(const float* image, const Place& place, float* x, int channels, int tokens) {
#if defined(__AVX512F__)
    in_squares(channels, [=, &place](int token, int channel, __mmask16 mask) {
        __m512i square[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            square[i] = _mm512_maskz_loadu_epi32(token + i < tokens ? mask : 0, image + place.pixels[token + i] + channel);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) _mm512_store_si512(x + (channel + i) * L + token, square[i]);
    });
#else
    for (int token = 0; token < L; token++)
        for (int c = 0; c < channels; c++) x[c * L + token] = token < tokens ? image[place.pixels[token] + c] : 0;
#endif
}

void store(float* image, const Place& place, const float* x, int channels, int tokens) {
#if defined(__AVX512F__)
    in_squares(channels, [=, &place](int token, int channel, __mmask16 mask) {
        __m512i square[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) square[i] = _mm512_load_si512(x + (channel + i) * L + token);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            _mm512_mask_storeu_epi32(image + place.pixels[token + i] + channel, token + i < tokens ? mask : 0, square[i]);
    });
#else
    for (int token = 0; token < tokens; token++)
        for (int c = 0; c < channels; c++) image[place.pixels[token] + c] = x[c * L + token];
#endif
}

template <class Factor>
void run_window(const Shape& s, const Block<Factor>& block, const float* position, const float* from, float* to,
                const Place& place, Scratch<Factor>& scratch) {
    const int channels = s.channels, depth = s.channels / s.heads, hidden = s.hidden, tokens = s.window * s.window;
    const int keys = std::is_same_v<Factor, float> ? (tokens + 1) / 2 * 2 : L;  // beyond the tokens their weights are 0
    auto linear = [&](const Factor* w, const float* bias, const Factor* in, int rows, int columns, auto store) {
        product(Matrix<Factor, 1>{w, row_of_weights(columns, w)}, in, rows, columns,
                [=](int row, int) { return all(bias[row]); }, store);
    };
    auto add_to_x = [x = scratch.x](int row, int token, Floats first, Floats second) {
        put(x, row, token, at(x + row * L + token) + first, at(x + (row + 1) * L + token) + second);
    };
    load(from, place, scratch.x, channels, tokens);
    normalize(scratch.x, scratch.normal, channels);
    linear(block.qkv, block.qkv_bias, scratch.normal, 3 * channels, channels,
           [=, qkv = scratch.qkv](int row, int token, Floats first, Floats second) {
               put_qkv(qkv, channels, row, token, first, second);
           });
    Head<Factor> next(scratch.qkv, channels, depth, 0, scratch.keys_of(0));
    for (int head = 0; head < s.heads; head++) {
        alignas(64) float shares[L];
        const Head<Factor> here = next;
        score(here, position + head * L * L, depth, keys, scratch.weights, shares);
        const float* share = shares;
        // Between: what was stored just now is not to be had in tiles at once.
        if (head + 1 < s.heads) next = Head<Factor>(scratch.qkv, channels, depth, head + 1, scratch.keys_of(head + 1));
        product(here.values, scratch.weights, depth, keys, [](int, int) { return Floats{}; },
                [=, out = row_of(scratch.attended, head * depth)](int row, int token, Floats first, Floats second) {
                    put(out, row, token, first * at(share + token), second * at(share + token));
                });
    }
    linear(block.proj, block.proj_bias, scratch.attended, channels, channels, add_to_x);
    normalize(scratch.x, scratch.normal, channels);
    linear(block.fc1, block.fc1_bias, scratch.normal, hidden, channels,
           [hidden = scratch.hidden](int row, int token, Floats first, Floats second) {
               put(hidden, row, token, gelu_for(hidden, first), gelu_for(hidden, second));
           });
    linear(block.fc2, block.fc2_bias, scratch.hidden, channels, hidden, add_to_x);
    store(to, place, scratch.x, channels, tokens);
}

}  // namespace
