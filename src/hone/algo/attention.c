/* Causal attention over a flat batch, and its gradients, by blocks of queries (Dao et al. 2022): memory is linear in the
 * length. A run of tokens sees itself causally and, where it continues another run, its parent, all of that one.
 *
 * All numbers are float32. Axes: T tokens, A attention heads, K key/value heads, D head size. qkv [T, (A + 2K) * D] holds
 * queries, keys and values, turned. A query's scores are those of its parent's keys, then those of its own run's, each
 * part padded to whole panels; `span` is the length of both. A task computes the same whatever thread takes it.
 */
#include "kernels.h"

#define QUERIES 24 /* of a block: their scores stay in the second-level cache up to a length of about 4,000 */

typedef struct {
    const float *qkv;
    const count *starts, *lengths, *parents; /* of each run; the parent's number, or -1 */
    count runs, heads, kv_heads, size, row;  /* row: the numbers of a token in qkv */
    count *places, longest;                  /* where a run's panels begin, in tokens; the longest span */
} batch;

typedef struct {
    count run, head, first;
} task;

/* How many of its queries' scores a run's parent takes. */
INLINE count before(const batch *b, count run) {
    return b->parents[run] < 0 ? 0 : padded(b->lengths[b->parents[run]]);
}

static batch open_batch(const float *qkv, const count *runs, count num_runs, count heads, count kv_heads, count size) {
    batch b = {qkv, runs, runs + num_runs, runs + 2 * num_runs, num_runs, heads, kv_heads, size};
    b.row = (heads + 2 * kv_heads) * size;
    b.places = malloc(sizeof(count) * (num_runs + 1));
    b.places[0] = 0;
    for (count r = 0; r < num_runs; r++) {
        count span = before(&b, r) + padded(b.lengths[r]);
        b.places[r + 1] = b.places[r] + padded(b.lengths[r]);
        if (span > b.longest) b.longest = span;
    }
    return b;
}

/* The panels of one run and key/value head: by tokens, for products with vectors [D], `across` 0; or by the numbers of
 * the vectors, for sums over tokens. */
INLINE float *panels_of(const batch *b, float *panels, count run, count kv_head, int across) {
    count height = padded(b->lengths[run]), width = across ? padded(b->size) : b->size;
    return panels + (b->places[run] * b->kv_heads + kv_head * height) * width;
}

static float *room(const batch *b, int across) {
    return malloc(sizeof(float) * b->places[b->runs] * b->kv_heads * (across ? padded(b->size) : b->size));
}

/* Pack keys, which come after the queries, or values, after `offset` heads; by a team of threads. */
static void pack_heads(const batch *b, float *panels, count offset, int across) {
#pragma omp for schedule(dynamic)
    for (count t = 0; t < b->runs * b->kv_heads; t++) {
        count run = t / b->kv_heads, head = t % b->kv_heads, length = b->lengths[run];
        const float *from = b->qkv + b->starts[run] * b->row + (offset + head) * b->size;
        float *to = panels_of(b, panels, run, head, across);
        if (across)
            pack_panels(from, to, b->size, length, 1, b->row);
        else
            pack_panels(from, to, length, b->size, b->row, 1);
    }
}

/* x [rows, D] times the vectors of what queries first to first + rows of a run see -> out [rows, span]; returns span */
INLINE count with_tokens(const batch *b, float *panels, task at, count rows, const float *x, count stride, float *out) {
    count kv_head = at.head / (b->heads / b->kv_heads), parent = b->parents[at.run], depth = b->size;
    count start = before(b, at.run), own = padded(at.first + rows);
    if (parent >= 0)
        multiply_panels(x, stride, 1, panels_of(b, panels, parent, kv_head, 0), depth * WIDTH, out, start + own, rows,
                        start, depth, 0);
    multiply_panels(x, stride, 1, panels_of(b, panels, at.run, kv_head, 0), depth * WIDTH, out + start, start + own,
                    rows, own, depth, 0);
    return (start + own) / WIDTH * WIDTH; /* which says what it is a multiple of, so that loops need no remainder */
}

/* Sums over what the queries see, by weights [rows, span], of vectors -> out [rows, D] */
static void over_tokens(const batch *b, float *panels, task at, count rows, const float *weights, count span, float *out,
                        count stride) {
    count kv_head = at.head / (b->heads / b->kv_heads), parent = b->parents[at.run];
    if (parent >= 0)
        multiply_panels(weights, span, 1, panels_of(b, panels, parent, kv_head, 1), b->lengths[parent] * WIDTH, out,
                        stride, rows, b->size, b->lengths[parent], 0);
    multiply_panels(weights + before(b, at.run), span, 1, panels_of(b, panels, at.run, kv_head, 1), b->lengths[at.run] * WIDTH, out,
                    stride, rows, b->size, at.first + rows, parent >= 0);
}

/* Take from the n-th query's scores [span] what it does not see: e^score becomes 0. A query all of whose scores have
 * overflowed to -inf gets NaN, not a mean over what it must not see. */
INLINE void hide(const batch *b, task at, count n, float *row, count span) {
    count parent = b->parents[at.run], seen = parent < 0 ? 0 : b->lengths[parent], start = before(b, at.run);
    for (count i = seen; i < start; i++) row[i] = -INFINITY;
    for (count i = start + at.first + n + 1; i < span; i++) row[i] = -INFINITY;
}

/* e^(scale x - shift) in place; returns the sum. */
INLINE float exponentials(float *x, count span, float scale, float shift) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (count i = 0; i < span; i++) sum += x[i] = exponential(x[i] * scale - shift);
    return sum;
}

/* runs [3, R]: starts, lengths and parents -> out [T, A * D] and the logs of the sums of e^score, [T, A] */
void attention(const float *qkv, const count *runs, float *out, float *normalisers, count num_runs, count heads,
               count kv_heads, count size, int threads) {
    batch b = open_batch(qkv, runs, num_runs, heads, kv_heads, size);
    float *keys = room(&b, 0), *values = room(&b, 1), scale = 1.0f / sqrtf(size);
    count tasks = 0;
    for (count r = 0; r < num_runs; r++) tasks += (b.lengths[r] + QUERIES - 1) / QUERIES * heads;
    task *todo = malloc(sizeof(task) * tasks), *end = todo;
    for (count r = 0; r < num_runs; r++)
        for (count head = 0; head < heads; head++)
            for (count first = 0; first < b.lengths[r]; first += QUERIES) *end++ = (task){r, head, first};
#pragma omp parallel num_threads(threads)
    {
        pack_heads(&b, keys, heads, 0);
        pack_heads(&b, values, heads + kv_heads, 1);
        float *scores = malloc(sizeof(float) * QUERIES * b.longest);
#pragma omp for schedule(dynamic, 4)
        for (count t = 0; t < tasks; t++) {
            task at = todo[t];
            count rows = smaller(QUERIES, b.lengths[at.run] - at.first), token = b.starts[at.run] + at.first;
            float *to = out + (token * heads + at.head) * size, sums[QUERIES];
            count span = with_tokens(&b, keys, at, rows, qkv + token * b.row + at.head * size, b.row, scores);
            for (count n = 0; n < rows; n++) {
                float *row = scores + n * span;
                hide(&b, at, n, row, span);
                float most = scale * largest(row, span);
                sums[n] = exponentials(row, span, scale, most);
                normalisers[(token + n) * heads + at.head] = most + logf(sums[n]);
            }
            over_tokens(&b, values, at, rows, scores, span, to, heads * size);
            for (count n = 0; n < rows; n++)
                for (count i = 0; i < size; i++) to[n * heads * size + i] /= sums[n];
        }
        free(scores);
    }
    free(todo), free(keys), free(values), free(b.places);
}

/* Add to each vector that queries see, in `out` [T, A, D], the vectors [rows, D] of the queries by weights [rows, span];
 * `panels` is room for them. */
static void to_tokens(const batch *b, task at, count rows, const float *weights, count span, const float *vectors,
                      count stride, float *panels, float *out) {
    count width = b->heads * b->size, parent = b->parents[at.run], own = at.first + rows;
    pack_panels(vectors, panels, b->size, rows, 1, stride);
    out += at.head * b->size;
    if (parent >= 0)
        multiply_panels(weights, 1, span, panels, rows * WIDTH, out + b->starts[parent] * width, width,
                        b->lengths[parent], b->size, rows, 1);
    multiply_panels(weights + before(b, at.run), 1, span, panels, rows * WIDTH, out + b->starts[at.run] * width, width,
                    own, b->size, rows, 1);
}

/* The gradients of one head and of a run's queries; those of keys and values come to to_keys and to_values [T, A, D]. */
static void run_backward(const batch *b, float *keys, float *keys_across, float *values, task at, const float *out,
                         const float *normalisers, const float *grad, float *to_qkv, float *to_keys, float *to_values,
                         float *weights, float *grads, float *panels) {
    count size = b->size, width = b->heads * size;
    float scale = 1.0f / sqrtf(size);
    for (at.first = 0; at.first < b->lengths[at.run]; at.first += QUERIES) {
        count rows = smaller(QUERIES, b->lengths[at.run] - at.first), token = b->starts[at.run] + at.first;
        count place = token * width + at.head * size;
        const float *query = b->qkv + token * b->row + at.head * size;
        count span = with_tokens(b, keys, at, rows, query, b->row, weights);
        with_tokens(b, values, at, rows, grad + place, width, grads);
        for (count n = 0; n < rows; n++) {
            float *row = weights + n * span, *to = grads + n * span;
            float along = dot(grad + place + n * width, out + place + n * width, size);
            float normaliser = normalisers[(token + n) * b->heads + at.head];
            hide(b, at, n, row, span);
            exponentials(row, span, scale, normaliser);
#pragma omp simd
            for (count i = 0; i < span; i++) to[i] = row[i] * (to[i] - along) * scale;
        }
        over_tokens(b, keys_across, at, rows, grads, span, to_qkv + token * b->row + at.head * size, b->row);
        to_tokens(b, at, rows, weights, span, grad + place, width, panels, to_values);
        to_tokens(b, at, rows, grads, span, query, b->row, panels, to_keys);
    }
}

/* out and grad [T, A * D], normalisers [T, A] -> to_qkv [T, (A + 2K) * D] */
void attention_backward(const float *qkv, const count *runs, const float *out, const float *normalisers,
                        const float *grad, float *to_qkv, count tokens, count num_runs, count heads, count kv_heads,
                        count size, int threads) {
    batch b = open_batch(qkv, runs, num_runs, heads, kv_heads, size);
    float *keys = room(&b, 0), *values = room(&b, 0), *keys_across = room(&b, 1);
    count width = heads * size, group = heads / kv_heads;
    float *to_keys = calloc(2 * tokens * width, sizeof(float)), *to_values = to_keys + tokens * width;
#pragma omp parallel num_threads(threads)
    {
        pack_heads(&b, keys, heads, 0);
        pack_heads(&b, values, heads + kv_heads, 0);
        pack_heads(&b, keys_across, heads, 1);
        float *weights = malloc(sizeof(float) * QUERIES * b.longest), *grads = malloc(sizeof(float) * QUERIES * b.longest);
        float *panels = malloc(sizeof(float) * QUERIES * padded(size));
#pragma omp for schedule(dynamic)
        for (count t = 0; t < num_runs * heads; t++) { /* runs that share keys are one thread's, in their order */
            count root = t / heads;
            for (count r = root; r < num_runs && b.parents[root] < 0; r++)
                if (r == root || b.parents[r] == root)
                    run_backward(&b, keys, keys_across, values, (task){r, t % heads, 0}, out, normalisers, grad, to_qkv,
                                 to_keys, to_values, weights, grads, panels);
        }
        free(weights), free(grads), free(panels);
#pragma omp for
        for (count t = 0; t < tokens; t++)
            for (count k = 0; k < 2 * kv_heads; k++) {
                const float *from = (k < kv_heads ? to_keys : to_values) + t * width + k % kv_heads * group * size;
                float *to = to_qkv + t * b.row + (heads + k) * size;
                memcpy(to, from, sizeof(float) * size);
                for (count g = 1; g < group; g++)
                    for (count i = 0; i < size; i++) to[i] += from[g * size + i];
            }
    }
    free(to_keys), free(keys), free(values), free(keys_across), free(b.places);
}
