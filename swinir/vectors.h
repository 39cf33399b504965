// Vectors of floats as wide as the processor has them, and what is computed with them.

#pragma once

#include <array>
#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, VECTORS = 4;  // floats in a vector; vectors of tokens that a block of accumulators spans
#elif defined(__AVX__)
constexpr int WIDTH = 8, VECTORS = 2;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, VECTORS = 4;
#else
constexpr int WIDTH = 4, VECTORS = 2;
#endif
constexpr int L = 64;  // tokens a window has room for: 8 x 8, or 7 x 7 and some that are never stored

typedef float Floats __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Floats& at(float* p) { return *reinterpret_cast<Floats*>(p); }
inline const Floats& at(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline const Ints& at(const int32_t* p) { return *reinterpret_cast<const Ints*>(p); }
inline Floats all(float value) { return value - Floats{}; }
#if defined(__AVX512F__)  // GCC 12 makes two instructions of the others, and warns of its own header without a mask
inline Floats largest(Floats a, Floats b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline Floats smallest(Floats a, Floats b) { return _mm512_maskz_min_ps(0xffff, a, b); }
#else
inline Floats largest(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smallest(Floats a, Floats b) { return a < b ? a : b; }
#endif

// e^x for x < 88, 1e-38 below -87: 2^n * e^r with |r| <= ln2 / 2, a polynomial fitted for the least relative error. That is
// 1e-7 near 0 and 2e-6 at 60, by what ln2 is off as a float.
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

// Phi as a polynomial in x^2, fitted for the least error of x * Phi(x), and from ``end`` on what it is there.
template <int TERMS>
struct Phi {
    float end, terms[TERMS];
};
constexpr Phi<14> PHI{5.5f, {-0.00091174632f, 0.0025922631f, -0.0025182146f, 0.0024753428f, -0.0062927124f, 0.011425276f,
                             -0.015373257f, 0.020029547f, -0.025941897f, 0.032113593f, -0.038804694f, 0.047735605f,
                             -0.064171978f, 0.12855195f}};  // to 1e-6, and 1e-7 of x
constexpr Phi<9> ROUGH_PHI{4.5f, {0.0033536829f, -0.0093285305f, 0.012208534f, -0.016744054f, 0.027629398f, -0.040555764f,
                                  0.054818569f, -0.07717196f, 0.15690211f}};  // to 3e-5, for what becomes bfloat16

// How much of a normal distribution lies between 0 and ``near``, which is within the range of ``phi``.
template <int TERMS>
inline Floats share_from_0(Floats near, const Phi<TERMS>& phi) {
    Floats u = near * near * (2 / (phi.end * phi.end)) - 1.0f;
    Floats p = all(phi.terms[0]);
#pragma GCC unroll 16
    for (int i = 1; i < TERMS; i++) p = p * u + phi.terms[i];
    return near * p;
}

// x * Phi(x), the exact GELU but for the error of ``phi``.
template <int TERMS>
inline Floats gelu(Floats x, const Phi<TERMS>& phi) {
    return x * (share_from_0(smallest(largest(x, all(-phi.end)), all(phi.end)), phi) + 0.5f);
}

// Its slope, Phi(x) + x * e^(-x^2 / 2) / sqrt(2 pi).
template <int TERMS>
inline Floats gelu_slope(Floats x, const Phi<TERMS>& phi) {
    Floats near = smallest(largest(x, all(-phi.end)), all(phi.end));
    return share_from_0(near, phi) + 0.5f + near * exponential(near * near * -0.5f) * 0.398942280f;
}

#if defined(__AVX512F__)
// A 16 x 16 matrix turned: 1, 2, 4 and 8 columns change places with rows as far apart.
inline void transpose(__m512i (&square)[WIDTH]) {
    struct Choice {
        alignas(64) int32_t upper[WIDTH], lower[WIDTH];
    };
    static constexpr auto CHOICES = [] {
        std::array<Choice, 4> choices{};
        for (int n = 0; n < 4; n++)
            for (int j = 0, step = 1 << n; j < WIDTH; j++) {
                choices[n].upper[j] = j & step ? WIDTH + j - step : j;
                choices[n].lower[j] = j & step ? WIDTH + j : j + step;
            }
        return choices;
    }();
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        const __m512i upper = _mm512_load_si512(CHOICES[n].upper), lower = _mm512_load_si512(CHOICES[n].lower);
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            if (!(i & 1 << n)) {
                const __m512i a = square[i], b = square[i | 1 << n];
                square[i] = _mm512_permutex2var_epi32(a, upper, b);
                square[i | 1 << n] = _mm512_permutex2var_epi32(a, lower, b);
            }
    }
}
#endif

}  // namespace
