/* What the loops in C share. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t count;

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__)
#define LANES 16 /* numbers in a vector */
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define WIDTH (2 * LANES) /* columns of a panel */
#define SMALL 16384       /* numbers for which waking a second thread takes longer than it saves */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE count smaller(count a, count b) { return a < b ? a : b; }
INLINE count padded(count size) { return (size + WIDTH - 1) / WIDTH * WIDTH; }

/* e^x as 2^n 2^r with Cephes' polynomial for 2^r, without a branch, so that loops over it become vector code. The
 * relative error is 1e-7 times (1 + |x|); below -88 it is 0, above 88 it stays at 2^127, and NaN is NaN. */
INLINE float exponential(float x) {
    float t = x * 1.44269504f;
    t = t > 127.0f ? 127.0f : t;
    t = t < -127.0f ? -127.0f : t;
    float n = floorf(t + 0.5f), r = t - n;
    float p = 1.535336188e-4f;
    p = p * r + 1.339887440e-3f;
    p = p * r + 9.618437358e-3f;
    p = p * r + 5.550332471e-2f;
    p = p * r + 2.402264791e-1f;
    p = p * r + 6.931472029e-1f;
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return (p * r + 1.0f) * power.value;
}

INLINE float dot(const float *a, const float *b, count size) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (count i = 0; i < size; i++) sum += a[i] * b[i];
    return sum;
}

INLINE float largest(const float *x, count size) {
    float most = x[0];
#pragma omp simd reduction(max : most)
    for (count i = 0; i < size; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* to [H] = x [H] over its root mean square, times weight [H]; `to` may be x. */
INLINE void normalise(const float *x, const float *weight, float *to, count size, float eps) {
    float scale = 1.0f / sqrtf(dot(x, x, size) / size + eps);
#pragma omp simd
    for (count i = 0; i < size; i++) to[i] = x[i] * scale * weight[i];
}

/* Turn one head's vector [D] by its position's angles [D/2]; i is paired with i + D/2. */
INLINE void turn(float *restrict x, const float *restrict cos, const float *restrict sin, count half) {
#pragma omp simd
    for (count i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * cos[i] - second * sin[i];
        x[i + half] = second * cos[i] + first * sin[i];
    }
}

void pack_panels(const float *weight, float *panels, count columns, count depth, count column_stride,
                 count depth_stride);
void multiply_panels(const float *x, count row_stride, count depth_stride, const float *panels, count panel_stride,
                     float *out, count out_stride, count rows, count columns, count depth, int add);
void multiply(const float *x, const float *panels, const float *bias, float *out, count rows, count columns, count depth,
              int add, int threads);
void rms_norm(const float *x, const float *weight, float *out, count rows, count size, float eps, int threads);
void swiglu(const float *gate_up, float *out, count rows, count size, int threads);
