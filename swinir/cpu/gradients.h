// The way back of a window through a Swin transformer block.
//
// From the gradient of what left it to that of what came in, and to what it adds to the gradients of the parameters. What the
// way forward had on it is computed anew, in the cache.

#pragma once

#include <memory>

#include "window.h"

namespace {

template <class Factor>
struct TurnedWeights {  // as (in, out), filled up as those of Block are
    const Factor *qkv, *proj, *fc1, *fc2;
};

constexpr float LN_2 = 0.693147181f;  // of scores, which are powers of 2
constexpr int SQUARE = 16;  // rows and columns that ``crossed`` turns at a time
constexpr int64_t whole_columns(int64_t columns) { return (columns + L - 1) / L * L; }
constexpr int LANES = 16;  // that gradients of a bias are added up in

// The gradients of a block's parameters, one after another: of each linear layer (out + 1, in), its rows filled up to a
// multiple of L, and of its bias (out + 1, LANES); of the position bias (kinds, heads, keys, queries).
struct Gradients {
    struct Linear {
        float *weight, *bias;
        int64_t row;
    };
    Linear qkv, proj, fc1, fc2;
    float* position;
    int64_t position_size;  // of one kind of window

    Gradients(const Shape& s, float* memory) : position_size(s.heads * L * L) {
        auto linear = [next = memory](int64_t out, int64_t in) mutable {
            const Linear here{next, next + (out + 1) * whole_columns(in), whole_columns(in)};
            next = here.bias + (out + 1) * LANES;
            return here;
        };
        qkv = linear(3 * s.channels, s.channels);
        proj = linear(s.channels, s.channels);
        fc1 = linear(s.hidden, s.channels);
        fc2 = linear(s.channels, s.hidden);
        position = fc2.bias + (s.channels + 1) * LANES;
    }

    int64_t size(int64_t kinds) const { return position - qkv.weight + kinds * position_size; }
};

template <class T>
struct Array {  // of zeros, on a cache line
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data;

    explicit Array(int64_t size) {
        const int64_t bytes = (size * sizeof(T) + 63) / 64 * 64;
        data.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        std::memset(static_cast<void*>(data.get()), 0, bytes);
    }
    operator T*() const { return data.get(); }
};

// Room for one window on its way back, with rows to spare: products store them in twos, and ``load`` and ``crossed`` take 16.
template <class Factor>
struct BackwardScratch {
    Array<float> x, normal1, normal2, qkv, attended, shares, hidden;
    Array<float> d_out, d_attended, d_qkv, d_hidden, d_normal;
    Array<Factor> weights, weights_by_token, d_scores, d_scores_by_token, in, left, tokens, columns;
    Scratch<Factor> forward;

    explicit BackwardScratch(const Shape& s)
        : x(rows(s.channels)), normal1(rows(s.channels)), normal2(rows(s.channels)), qkv(rows(3 * s.channels)),
          attended(rows(s.channels)), shares(s.heads * L), hidden(rows(s.hidden)), d_out(rows(s.channels)),
          d_attended(rows(s.channels)), d_qkv(rows(3 * s.channels)), d_hidden(rows(s.hidden)), d_normal(rows(s.channels)),
          weights(s.heads * L * L), weights_by_token(L * L), d_scores(L * L), d_scores_by_token(L * L), in(most(s)),
          left(most(s)), tokens(most(s)), columns(most(s)), forward(s) {}

   private:
    static int64_t rows(int64_t count) { return (count + SQUARE) * L; }
    static int64_t most(const Shape& s) { return whole_columns(std::max({3 * s.channels, s.hidden, int64_t(L)})) * L; }
};

// out += the gradient before a LayerNorm, of that behind it.
void add_before_norm(const float* d_normal, const float* normal, const float* scale, int channels, float* out) {
    for (int token = 0; token < L; token += WIDTH) {
        Floats mean{}, along{};
        for (int c = 0; c < channels; c++) {
            mean += at(d_normal + c * L + token);
            along += at(d_normal + c * L + token) * at(normal + c * L + token);
        }
        mean /= float(channels);
        along /= float(channels);
        for (int c = 0; c < channels; c++) {
            const int i = c * L + token;
            at(out + i) += at(scale + token) * (at(d_normal + i) - mean - at(normal + i) * along);
        }
    }
}

// The rows of (rows, L), held by tokens, as the columns of a factor whose depth the tokens are: L columns, then the next L.
template <class Factor>
const Factor* crossed(Matrix<Factor, 1> in, int rows, Factor* out) {
    const int depth = in.row;  // tokens, or pairs of them
    for (int row = 0; row < rows; row += SQUARE)
        for (int token = 0; token < depth; token += SQUARE) {
            Factor* to = out + row / L * depth * L + token * L + row % L;
#if defined(__AVX512F__)
            __m512i square[SQUARE];
#pragma GCC unroll 16
            for (int i = 0; i < SQUARE; i++) square[i] = _mm512_load_si512(in.data + (row + i) * in.row + token);
            transpose(square);
#pragma GCC unroll 16
            for (int i = 0; i < SQUARE; i++) _mm512_store_si512(to + i * L, square[i]);
#else
            for (int i = 0; i < SQUARE; i++)
                for (int j = 0; j < SQUARE; j++) to[i * L + j] = in.data[(row + j) * in.row + token + i];
#endif
        }
    return out;
}

// What a window adds to the gradients of a linear layer: d (out, L) times the transpose of what came in, by ``crossed``.
template <class Factor>
void add_to(const Gradients::Linear& gradient, const float* d, int out, const Factor* came_in, int in, Factor* left) {
    const Matrix<Factor, 1> by_tokens = by_token(d, out, left);
    // Of all L tokens: ``load`` has made those 0 that are none, and nothing has been added to them since.
    for (int row = 0; row < out; row++)
        for (int token = 0; token < L; token += WIDTH) at(gradient.bias + row * LANES) += at(d + row * L + token);
    for (int first_column = 0; first_column < in; first_column += L) {
        float* weight = gradient.weight + first_column;
        product(by_tokens, came_in + first_column * by_tokens.row, out, L,
                [=, step = gradient.row](int row, int column) { return at(weight + row * step + column); },
                [=, step = gradient.row](int row, int column, Floats first, Floats second) {
                    at(weight + row * step + column) = first;
                    at(weight + (row + 1) * step + column) = second;  // the row too many is nobody's
                });
    }
}

// From d_attended to d_qkv, head by head. ``weights`` are as ``score`` leaves them, still to be multiplied by ``shares``; here
// d_attended is, in its place.
template <class Factor>
void backward_attention(const Shape& s, const BackwardScratch<Factor>& scratch, float* d_position) {
    const int channels = s.channels, depth = s.channels / s.heads;
    auto zero = [](int, int) { return Floats{}; };
    for (int head = 0; head < s.heads; head++) {
        const int64_t rows = head * depth * L, part = channels * L;
        const float *q = scratch.qkv + rows, *k = q + part, *v = k + part, *share = scratch.shares + head * L;
        const float *attended = scratch.attended + rows;
        const Factor* weights = scratch.weights + head * L * L;
        float *d_attended = scratch.d_attended + rows, *d_q = scratch.d_qkv + rows, *d_bias = d_position + head * L * L;
        Factor *by_keys = scratch.weights_by_token, *d_scores = scratch.d_scores, *d_by_keys = scratch.d_scores_by_token;
        auto rows_to = [=](float* out) {  // and not one too many, which is the next head's
            return [=](int row, int token, Floats first, Floats second) {
                at(out + row * L + token) = first;
                if (row + 1 < depth) at(out + (row + 1) * L + token) = second;
            };
        };
        alignas(64) float changes[L]{};  // of the sums that the weights are divided by
        float* change = changes;
        for (int i = 0; i < depth * L; i += WIDTH) {
            at(d_attended + i) *= at(share + i % L);
            at(change + i % L) += at(attended + i) * at(d_attended + i);
        }
        product(turned(v, depth, +scratch.left), by_depth(d_attended, depth, +scratch.in), L, depth, zero,
                [=](int key, int token, Floats first, Floats second) {
                    const auto [one, other] = get(weights, key, token);
                    put_by_token(by_keys, key, token, one);
                    put_by_token(by_keys, key + 1, token, other);
                    first = one * LN_2 * (first - at(change + token));
                    second = other * LN_2 * (second - at(change + token));
                    put(d_scores, key, token, first, second);
                    put_by_token(d_by_keys, key, token, first);
                    put_by_token(d_by_keys, key + 1, token, second);
                    float* sum = d_bias + key * L + token;
                    at(sum) += first;
                    at(sum + L) += second;
                });
        auto multiply = [&](const float* rows, const Factor* in, float* out) {
            product(by_token(rows, depth, +scratch.left), in, depth, L, zero, rows_to(out));
        };
        auto by_queries = [&](const Factor* by_keys) {
            return crossed(Matrix<Factor, 1>{by_keys, row_by_token(by_keys)}, L, +scratch.columns);
        };
        multiply(d_attended, by_queries(by_keys), d_q + 2 * part);
        multiply(k, d_scores, d_q);
        multiply(q, by_queries(d_by_keys), d_q + part);
    }
}

// ``d_image`` holds the gradient of what left the block where the window lies, and then that of what came in, from ``image``.
template <class Factor>
void backward_window(const Shape& s, const Block<Factor>& block, const TurnedWeights<Factor>& turned_weights,
                     const float* position, const float* image, float* d_image, const Place& place,
                     const BackwardScratch<Factor>& scratch, const Gradients& gradients, float* d_position) {
    const int channels = s.channels, depth = s.channels / s.heads, hidden = s.hidden, tokens = s.window * s.window;
    alignas(64) float scales1[L], scales2[L];
    auto linear = [&](const Factor* w, const float* bias, const float* in, int rows, int columns, auto store) {
        product(Matrix<Factor, 1>{w, row_of_weights(columns, w)}, by_depth(in, columns, +scratch.in), rows, columns,
                [=](int row, int) { return bias ? all(bias[row]) : Floats{}; }, store);
    };
    auto rows_to = [](float* out) {
        return [=](int row, int token, Floats first, Floats second) { put(out, row, token, first, second); };
    };
    auto columns_of = [&](const float* x, int rows) {
        return crossed(by_token(x, rows, +scratch.tokens), rows, +scratch.columns);
    };

    load(image, place, scratch.x, channels, tokens);
    normalize(scratch.x, +scratch.normal1, channels, scales1);
    linear(block.qkv, block.qkv_bias, scratch.normal1, 3 * channels, channels,
           [=, qkv = +scratch.qkv, factors = scratch.forward.qkv](int row, int token, Floats first, Floats second) {
               put(qkv, row, token, first, second);
               put_qkv(factors, channels, row, token, first, second);
           });
    for (int head = 0; head < s.heads; head++) {
        Factor* weights = scratch.weights + head * L * L;
        float* share = scratch.shares + head * L;
        const Head<Factor> here(scratch.forward.qkv, channels, depth, head, scratch.forward.keys_of(head));
        score(here, position + head * L * L, depth, L, weights, share);
        product(here.values, weights, depth, L, [](int, int) { return Floats{}; },
                [=, out = scratch.attended + head * depth * L](int row, int token, Floats first, Floats second) {
                    put(out, row, token, first * at(share + token), second * at(share + token));
                });
    }
    linear(block.proj, block.proj_bias, scratch.attended, channels, channels,
           [x = +scratch.x](int row, int token, Floats first, Floats second) {
               put(x, row, token, at(x + row * L + token) + first, at(x + (row + 1) * L + token) + second);
           });
    normalize(scratch.x, +scratch.normal2, channels, scales2);
    linear(block.fc1, block.fc1_bias, scratch.normal2, hidden, channels, rows_to(+scratch.hidden));

    load(d_image, place, scratch.d_out, channels, tokens);
    linear(turned_weights.fc2, nullptr, scratch.d_out, hidden, channels, rows_to(+scratch.d_hidden));
    for (int i = 0; i < hidden * L; i += WIDTH) {
        const Floats value = at(scratch.hidden + i);
        at(scratch.d_hidden + i) *= gelu_slope(value);
        at(scratch.hidden + i) = gelu(value);
    }
    add_to(gradients.fc2, scratch.d_out, channels, columns_of(scratch.hidden, hidden), hidden, +scratch.left);
    linear(turned_weights.fc1, nullptr, scratch.d_hidden, channels, hidden, rows_to(+scratch.d_normal));
    add_to(gradients.fc1, scratch.d_hidden, hidden, columns_of(scratch.normal2, channels), channels, +scratch.left);
    add_before_norm(scratch.d_normal, scratch.normal2, scales2, channels, scratch.d_out);

    linear(turned_weights.proj, nullptr, scratch.d_out, channels, channels, rows_to(+scratch.d_attended));
    add_to(gradients.proj, scratch.d_out, channels, columns_of(scratch.attended, channels), channels, +scratch.left);
    backward_attention(s, scratch, d_position);
    linear(turned_weights.qkv, nullptr, scratch.d_qkv, channels, 3 * channels, rows_to(+scratch.d_normal));
    add_to(gradients.qkv, scratch.d_qkv, 3 * channels, columns_of(scratch.normal1, channels), channels, +scratch.left);
    add_before_norm(scratch.d_normal, scratch.normal1, scales1, channels, scratch.d_out);
    store(d_image, place, scratch.d_out, channels, tokens);
}

}  // namespace
