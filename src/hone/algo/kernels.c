/* What happens between the products with weight matrices, each in one pass over memory, on a CPU.
 *
 * All numbers are float32 and lie row by row without gaps. Axes: N rows, H hidden, I intermediate, V vocabulary, A
 * attention heads, K key/value heads, D head size, P positions. Threads share whole rows, so that no result depends on
 * how many of them there are, but for a sum over rows.
 */
#include "kernels.h"

#define BLOCK 128 /* tokens whose probabilities are summed before one of them is looked for */

/* x [N, H], weight [H] -> out [N, H] */
void rms_norm(const float *x, const float *weight, float *out, count rows, count size, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++)
        normalise(x + n * size, weight, out + n * size, size, eps);
}

/* x and grad [N, H], weight [H] -> to_x [N, H]; sums [threads, H], which begin as zeros, together are weight's gradient.
 * y = w n with n = x s and s = (mean(x^2) + eps)^-1/2, so dx = s (g w - n mean(g w n)). */
void rms_norm_backward(const float *x, const float *weight, const float *grad, float *to_x, float *sums, count rows,
                       count size, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++) {
        const float *from = x + n * size, *g = grad + n * size;
        float *to = to_x + n * size, *to_weight = sums + omp_get_thread_num() * size;
        float scale = 1.0f / sqrtf(dot(from, from, size) / size + eps), along = 0;
#pragma omp simd reduction(+ : along)
        for (count i = 0; i < size; i++) {
            to_weight[i] += g[i] * from[i] * scale;
            along += g[i] * weight[i] * from[i];
        }
        along *= scale * scale / size;
#pragma omp simd
        for (count i = 0; i < size; i++) to[i] = scale * (g[i] * weight[i] - from[i] * along);
    }
}

/* gate_up [N, 2I] -> out [N, I] */
void swiglu(const float *gate_up, float *out, count rows, count size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * size, *up = gate + size;
        float *to = out + n * size;
#pragma omp simd
        for (count i = 0; i < size; i++) to[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
    }
}

/* gate_up [N, 2I], grad [N, I] -> to_gate_up [N, 2I] */
void swiglu_backward(const float *gate_up, const float *grad, float *to_gate_up, count rows, count size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++) {
        const float *gate = gate_up + n * 2 * size, *up = gate + size, *g = grad + n * size;
        float *to_gate = to_gate_up + n * 2 * size, *to_up = to_gate + size;
#pragma omp simd
        for (count i = 0; i < size; i++) {
            float open = 1.0f / (1.0f + exponential(-gate[i]));
            to_up[i] = g[i] * gate[i] * open;
            to_gate[i] = g[i] * up[i] * open * (1.0f + gate[i] * (1.0f - open));
        }
    }
}

/* The first `heads` vectors of each row of x, whose rows are `stride` apart: x [N, heads or more, D] */
void turn_heads(float *x, const float *cos, const float *sin, count rows, count heads, count size, count stride,
                int threads) {
#pragma omp parallel for num_threads(threads) if (rows * heads * size > SMALL)
    for (count n = 0; n < rows; n++)
        for (count a = 0; a < heads; a++)
            turn(x + n * stride + a * size, cos + n * size / 2, sin + n * size / 2, size / 2);
}

/* logits [N, V], targets [N] -> the targets' log-probabilities, the entropies, and the log of each row's sum of e^logit,
 * each [N] */
void token_figures(const float *logits, const count *targets, float *logprobs, float *entropies, float *normalisers,
                   count rows, count size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++) {
        const float *row = logits + n * size;
        float most = largest(row, size);
        double total = 0, weighted = 0;
        for (count first = 0; first < size; first += BLOCK) { /* in blocks, since float32 cannot hold a long sum */
            count end = first + BLOCK < size ? first + BLOCK : size;
            float sum = 0, products = 0;
#pragma omp simd reduction(+ : sum, products)
            for (count i = first; i < end; i++) {
                float e = exponential(row[i] - most);
                sum += e;
                products += e * (row[i] - most);
            }
            total += sum;
            weighted += products;
        }
        normalisers[n] = most + log(total);
        logprobs[n] = row[targets[n]] - most - log(total);
        entropies[n] = log(total) - weighted / total;
    }
}

/* Make of logits [N, V], in place, their gradients, of those of the targets' log-probabilities [N]. */
void logit_gradients(float *logits, const float *normalisers, const count *targets, const float *grads, count rows,
                     count size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
    for (count n = 0; n < rows; n++) {
        float *row = logits + n * size;
#pragma omp simd
        for (count i = 0; i < size; i++) row[i] = -grads[n] * exponential(row[i] - normalisers[n]);
        row[targets[n]] += grads[n];
    }
}

/* Draw a token a row by the inverse of the distribution's running sum: logits [N, V], uniforms [N] -> tokens [N] and
 * their log-probabilities [N]. A row whose logits are not finite gets NaN. */
void draw(const float *logits, const float *uniforms, count *tokens, float *logprobs, count rows, count size,
          int threads) {
    count blocks = (size + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads) if (rows * size > SMALL)
    {
        float *sums = malloc(sizeof(float) * blocks);
#pragma omp for
        for (count n = 0; n < rows; n++) {
            const float *row = logits + n * size;
            float most = largest(row, size), inside[BLOCK];
            double total = 0, before = 0, sum_inside = 0, passed = 0;
            for (count b = 0; b < blocks; b++) {
                count end = (b + 1) * BLOCK < size ? (b + 1) * BLOCK : size;
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (count i = b * BLOCK; i < end; i++) sum += exponential(row[i] - most);
                total += sums[b] = sum;
            }
            double wanted = uniforms[n] * total;
            count b = 0;
            while (b < blocks - 1 && before + sums[b] <= wanted) before += sums[b++];
            count first = b * BLOCK, length = first + BLOCK < size ? BLOCK : size - first, place = 0;
            for (count i = 0; i < length; i++) sum_inside += inside[i] = exponential(row[first + i] - most);
            /* A share of this sum, which was added in another order: so the token found has a probability above 0. */
            double rest = (wanted - before) / sums[b] * sum_inside;
            while (place < length - 1 && (passed += inside[place]) <= rest) place++;
            tokens[n] = first + place;
            logprobs[n] = row[first + place] - most - (float)log(total);
        }
        free(sums);
    }
}
