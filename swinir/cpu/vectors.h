// Vectors of floats as wide as the processor has them, and what is computed with them.

#pragma once

#include <array>
#include <cstdint>
#include <iterator>

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

// 2^y to 1e-7 of it, and 1e-38 below that: to multiply by what is less takes a processor a hundred times as long. 2^n * 2^r with
// |r| <= 0.5, a polynomial fitted for the least relative error. Where that is more than floats hold, it is more than 1e38.
inline Floats power_of_2(Floats y) {
    y = largest(y, all(-126.0f));
#if defined(__AVX512F__)
    Floats n = _mm512_maskz_roundscale_ps(0xffff, y, 8), r = y - n;
#else
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number in the low bits
    y = smallest(y, all(127.0f));
    Floats shifted = y + ROUND, r = y - (shifted - ROUND);
#endif
    Floats p = r * 0.0013276467f + 0.00967554129f;
    p = p * r + 0.055507133f;
    p = p * r + 0.240221197f;
    p = p * r + 0.693146967f;
    p = p * r + 1.00000007f;
#if defined(__AVX512F__)
    return _mm512_maskz_scalef_ps(0xffff, p, n);
#else
    Ints power = (reinterpret_cast<Ints>(shifted) + 127) << 23;
    return p * reinterpret_cast<Floats>(power);
#endif
}

// Phi(x) - 0.5 from -PHI_END to PHI_END, as a polynomial in x^2 fitted for the least error of x * Phi(x): 1e-6, and 1e-7 of x.
constexpr float PHI_END = 5.5f;
constexpr float PHI[] = {-0.00091174632f, 0.0025922631f, -0.0025182146f, 0.0024753428f, -0.0062927124f, 0.011425276f,
                         -0.015373257f,   0.020029547f,  -0.025941897f,  0.032113593f,  -0.038804694f,  0.047735605f,
                         -0.064171978f,   0.12855195f};

inline Floats near_0(Floats x) { return smallest(largest(x, all(-PHI_END)), all(PHI_END)); }

inline Floats share_from_0(Floats near) {
    Floats u = near * near * (2 / (PHI_END * PHI_END)) - 1.0f;
    Floats p = all(PHI[0]);
#pragma GCC unroll 16
    for (unsigned i = 1; i < std::size(PHI); i++) p = p * u + PHI[i];
    return near * p;
}

// x * Phi(x), the exact GELU but for that error.
inline Floats gelu(Floats x) { return x * (share_from_0(near_0(x)) + 0.5f); }

// Its slope, Phi(x) + x * e^(-x^2 / 2) / sqrt(2 pi).
inline Floats gelu_slope(Floats x) {
    Floats near = near_0(x);
    return share_from_0(near) + 0.5f + near * power_of_2(near * near * -0.721347520f) * 0.398942280f;
}

#if defined(__AVX512BF16__)
// The same for what becomes bfloat16, in two thirds of the instructions: beside its matrix unit the processor computes with one
// vector at a time, and these two are most of what it then has to do.

// 2^y to 8e-5 of it.
inline Floats rough_power_of_2(Floats y) {
    Floats r = _mm512_maskz_reduce_ps(0xffff, y, 9);  // y - floor(y)
    Floats p = r * 0.0780252892f + 0.226066051f;
    p = p * r + 0.695833897f;
    p = p * r + 0.999925238f;
    return _mm512_maskz_scalef_ps(0xffff, p, y);
}

// To 2e-4; beyond 3.9 as it is there.
inline Floats rough_gelu(Floats x) {
    Floats near = _mm512_maskz_range_ps(0xffff, x, all(3.9f), 2), u = near * near;  // the nearer to 0, with the sign of x
    Floats p = u * 2.45749696e-08f - 1.67329074e-06f;
    p = p * u + 4.90898201e-05f;
    p = p * u - 0.000821646943f;
    p = p * u + 0.00879427604f;
    p = p * u - 0.0645928234f;
    p = p * u + 0.397881627f;
    return x * (near * p + 0.5f);
}
#endif

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
