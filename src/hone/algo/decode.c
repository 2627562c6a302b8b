/* One new token a row through all layers of a decoder, while sampling.
 *
 * All numbers are float32. Axes: N rows, H hidden, I intermediate, A attention heads, K key/value heads, D head size, P
 * positions that the cache has room for.
 */
#include "kernels.h"

/* One row's queries [G, D] that share the keys and values [P, D] of one head, the next of which lie `ahead` of them;
 * `weights` [G, P], whose rows are `span` apart, a multiple of WIDTH, is room to work in. */
INLINE void attend_head(const float *restrict queries, const float *restrict keys, const float *restrict values,
                        float *restrict out, float *restrict weights, count group, count length, count size, count span,
                        count ahead) {
    float scale = 1.0f / sqrtf(size);
    count whole = padded(length);
    for (count p = 0; p < length; p++) {
        for (count d = 0; d < size; d += 16) { /* memory is slower than what is done here */
            __builtin_prefetch(keys + ahead + p * size + d);
            __builtin_prefetch(values + ahead + p * size + d);
        }
        for (count g = 0; g < group; g++)
            weights[g * span + p] = scale * dot(queries + g * size, keys + p * size, size);
    }
    for (count g = 0; g < group; g++) {
        float *row = weights + g * span, sum = 0;
        for (count p = length; p < whole; p++) row[p] = -INFINITY; /* so that no loop has a rest */
        float most = largest(row, whole);
#pragma omp simd reduction(+ : sum)
        for (count p = 0; p < whole; p++) sum += row[p] = exponential(row[p] - most);
        float *to = out + g * size;
        if (size % LANES) {
            for (count d = 0; d < size; d++) to[d] = 0;
            for (count p = 0; p < length; p++)
                for (count d = 0; d < size; d++) to[d] += row[p] * values[p * size + d];
            for (count d = 0; d < size; d++) to[d] /= sum;
            continue;
        }
#pragma GCC unroll 4
        for (count first = 0; first < size; first += 8 * LANES) { /* as many sums as stay in registers */
            vector sums[8] = {};
            count vectors = smaller(8, (size - first) / LANES);
            for (count p = 0; p < length; p++)
#pragma GCC unroll 8
                for (count i = 0; i < vectors; i++)
                    sums[i] += row[p] * *(vector *)(values + p * size + first + i * LANES);
            for (count i = 0; i < vectors; i++) *(vector *)(to + first + i * LANES) = sums[i] / sum;
        }
    }
}

/* Turn each row's queries and keys, keep its keys and values at `lengths` [N], less than `longest`, and attend to all so
 * far. qkv [N, (A + 2K) * D], cos and sin [positions, D/2], keys and values [N, K, P, D] -> out [N, A * D] */
static void attend(float *qkv, const float *cos, const float *sin, float *keys, float *values, const count *lengths,
                   float *out, count rows, count heads, count kv_heads, count size, count positions, count longest,
                   int threads) {
    count group = heads / kv_heads, half = size / 2, span = padded(longest);
#pragma omp parallel num_threads(threads) if (rows * heads * size * longest > SMALL)
    {
        float *weights = malloc(sizeof(float) * group * span);
#pragma omp for schedule(dynamic, 4)
        for (count task = 0; task < rows * kv_heads; task++) {
            count n = task / kv_heads, k = task % kv_heads, length = lengths[n] + 1;
            const float *cosines = cos + lengths[n] * half, *sines = sin + lengths[n] * half;
            float *query = qkv + (n * (heads + 2 * kv_heads) + k * group) * size;
            float *key = qkv + (n * (heads + 2 * kv_heads) + heads + k) * size, *value = key + kv_heads * size;
            float *all_keys = keys + task * positions * size, *all_values = values + task * positions * size;
            for (count g = 0; g < group; g++) turn(query + g * size, cosines, sines, half);
            turn(key, cosines, sines, half);
            for (count d = 0; d < size; d++) {
                all_keys[lengths[n] * size + d] = key[d];
                all_values[lengths[n] * size + d] = value[d];
            }
            float *to = out + (n * heads + k * group) * size;
            switch (size) { /* the loops of a size that is known here take half the time */
#define CASE(SIZE) \
    case SIZE: attend_head(query, all_keys, all_values, to, weights, group, length, SIZE, span, positions * size); break
                CASE(16);
                CASE(24);
                CASE(32);
                CASE(64);
                CASE(128);
#undef CASE
                default:
                    attend_head(query, all_keys, all_values, to, weights, group, length, size, span, positions * size);
            }
        }
        free(weights);
    }
}

/* Where the weights of a layer lie: vectors, and matrices in panels; NULL what a model does without. */
typedef struct {
    const float *input_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *o, *o_bias, *post_norm, *gate_up, *gate_up_bias, *down,
        *down_bias;
} layer;

/* x [N, H], the new tokens' vectors, which it works in -> out [N, H], their hidden states behind the last norm. Their
 * keys and values come to `lengths` [N], less than `longest`, of the store [L, 2, max_rows, K, P, D]; cos and sin
 * [positions, D/2] are the angles of all positions. */
void decode(float *x, const layer *layers, const float *norm, const float *cos, const float *sin, float *store,
            const count *lengths, float *out, count num_layers, count rows, count hidden, count inner, count heads,
            count kv_heads, count size, count positions, count max_rows, count longest, float eps, int threads) {
    count width = (heads + 2 * kv_heads) * size, part = max_rows * kv_heads * positions * size;
    float *qkv = malloc(sizeof(float) * rows * (width + heads * size + 3 * inner));
    float *attended = qkv + rows * width, *gate_up = attended + rows * heads * size, *gated = gate_up + rows * 2 * inner;
    for (const layer *at = layers; at < layers + num_layers; at++, store += 2 * part) {
        rms_norm(x, at->input_norm, out, rows, hidden, eps, threads);
        multiply(out, at->qkv, at->qkv_bias, qkv, rows, width, hidden, 0, threads);
        if (at->q_norm) /* Qwen3's norms of each head */
#pragma omp parallel for num_threads(threads) if (rows * width > SMALL)
            for (count n = 0; n < rows; n++)
                for (count a = 0; a < heads + kv_heads; a++) {
                    float *head = qkv + n * width + a * size;
                    normalise(head, a < heads ? at->q_norm : at->k_norm, head, size, eps);
                }
        attend(qkv, cos, sin, store, store + part, lengths, attended, rows, heads, kv_heads, size, positions, longest,
               threads);
        multiply(attended, at->o, at->o_bias, x, rows, hidden, heads * size, 1, threads);
        rms_norm(x, at->post_norm, out, rows, hidden, eps, threads);
        multiply(out, at->gate_up, at->gate_up_bias, gate_up, rows, 2 * inner, hidden, 0, threads);
        swiglu(gate_up, gated, rows, inner, threads);
        multiply(gated, at->down, at->down_bias, x, rows, hidden, inner, 1, threads);
    }
    rms_norm(x, norm, out, rows, hidden, eps, threads);
    free(qkv);
}
