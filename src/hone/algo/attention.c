/* Causal attention over a flat batch, and its gradients, by tiles of queries and keys (Dao et al. 2022): memory is linear
 * in the length. A run of tokens sees itself causally and, where it continues another run, its parent, all of that one.
 *
 * All numbers are float32. Axes: T tokens, A attention heads, K key/value heads, D head size. qkv [T, (A + 2K) * D] holds
 * queries, keys and values, turned. A task computes the same whatever thread takes it.
 */
#include "kernels.h"

#define QUERIES 48            /* of a tile, in long runs */
#define KEYS 256              /* of a tile: what it takes stays in the second-level cache */
#define STRIDE (KEYS + WIDTH) /* between a tile's rows: by a power of two, a column would lie in one set of the cache */

typedef struct {
    const float *qkv;
    const count *starts, *lengths, *parents; /* of each run; the parent's number, or -1 */
    count runs, heads, kv_heads, size, row;  /* row: the numbers of a token in qkv */
    count *places;                           /* where a run's panels begin, in tokens */
} batch;

/* Some queries of a run, for one head. */
typedef struct {
    count run, head, first, rows;
} task;

/* Keys of a run that the queries see, padded to whole panels: of their own run, or of its parent. */
typedef struct {
    count run, first, length, width;
} tile;

/* How many queries a task of a run has: with many, a short run would compute much that is hidden. */
INLINE count queries_of(count length) { return length > 4 * QUERIES ? QUERIES : QUERIES / 2; }

INLINE count blocks_of(count length) { return (length + queries_of(length) - 1) / queries_of(length); }

/* The n-th task of a run and head, of about as many queries as the others. */
INLINE task task_of(const batch *b, count run, count head, count n) {
    count length = b->lengths[run], blocks = blocks_of(length), first = length * n / blocks;
    return (task){run, head, first, length * (n + 1) / blocks - first};
}

/* The tile that follows another, first the parent's, then those of the queries' own run; of length 0 after the last. */
INLINE tile next_tile(const batch *b, task at, tile last) {
    count first = last.first + last.length, run = last.run;
    if (run != at.run && first == b->lengths[run]) run = at.run, first = 0;
    count seen = run == at.run ? at.first + at.rows : b->lengths[run], length = smaller(KEYS, seen - first);
    return (tile){run, first, length, padded(length) / WIDTH * WIDTH}; /* so that loops need no remainder */
}

INLINE tile first_tile(const batch *b, task at) {
    count parent = b->parents[at.run];
    return next_tile(b, at, (tile){parent < 0 ? at.run : parent, 0, 0, 0});
}

static batch open_batch(const float *qkv, const count *runs, count num_runs, count heads, count kv_heads, count size) {
    batch b = {qkv, runs, runs + num_runs, runs + 2 * num_runs, num_runs, heads, kv_heads, size};
    b.row = (heads + 2 * kv_heads) * size;
    b.places = malloc(sizeof(count) * (num_runs + 1));
    b.places[0] = 0;
    for (count r = 0; r < num_runs; r++) b.places[r + 1] = b.places[r] + padded(b.lengths[r]);
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

/* x [rows, D] times the vectors of a tile's keys -> out [rows, width], whose rows are STRIDE apart */
INLINE void with_tokens(const batch *b, float *panels, task at, tile to, const float *x, count stride, float *out) {
    float *from = panels_of(b, panels, to.run, at.head / (b->heads / b->kv_heads), 0) + to.first * b->size;
    multiply_panels(x, stride, 1, from, b->size * WIDTH, out, STRIDE, at.rows, to.width, b->size, 0);
}

/* Sums over a tile's keys, by weights [rows, width], of vectors -> out [rows, D]; added to what is there if `add` */
INLINE void over_tokens(const batch *b, float *panels, task at, tile to, const float *weights, float *out, count stride,
                        int add) {
    float *from = panels_of(b, panels, to.run, at.head / (b->heads / b->kv_heads), 1) + to.first * WIDTH;
    multiply_panels(weights, STRIDE, 1, from, b->lengths[to.run] * WIDTH, out, stride, at.rows, b->size, to.length, add);
}

/* Take from the n-th query's scores what it does not see: e^score becomes 0. A query all of whose scores have overflowed
 * to -inf gets NaN, not a mean over what it must not see. */
INLINE void hide(task at, tile to, count n, float *row) {
    count seen = to.run == at.run ? smaller(to.length, at.first + n + 1 - to.first) : to.length;
    for (count i = seen < 0 ? 0 : seen; i < to.width; i++) row[i] = -INFINITY;
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
    for (count r = 0; r < num_runs; r++) tasks += blocks_of(b.lengths[r]) * heads;
    task *todo = malloc(sizeof(task) * tasks), *end = todo;
    for (count r = 0; r < num_runs; r++)
        for (count head = 0; head < heads; head++)
            for (count n = 0; n < blocks_of(b.lengths[r]); n++) *end++ = task_of(&b, r, head, n);
#pragma omp parallel num_threads(threads)
    {
        pack_heads(&b, keys, heads, 0);
        pack_heads(&b, values, heads + kv_heads, 1);
        float *scores = malloc(sizeof(float) * QUERIES * STRIDE);
#pragma omp for schedule(dynamic, 4)
        for (count t = 0; t < tasks; t++) {
            task at = todo[t];
            count token = b.starts[at.run] + at.first;
            float *to = out + (token * heads + at.head) * size, sums[QUERIES], most[QUERIES];
            for (count n = 0; n < at.rows; n++) sums[n] = 0, most[n] = -INFINITY;
            int add = 0;
            for (tile seen = first_tile(&b, at); seen.length; seen = next_tile(&b, at, seen), add = 1) {
                with_tokens(&b, keys, at, seen, qkv + token * b.row + at.head * size, b.row, scores);
                for (count n = 0; n < at.rows; n++) { /* what was summed by a smaller score is scaled to the largest */
                    float *row = scores + n * STRIDE, *sum = to + n * heads * size, before = most[n];
                    hide(at, seen, n, row);
                    float found = scale * largest(row, seen.width);
                    most[n] = before > found ? before : found;
                    float kept = exponential(before - most[n]);
                    sums[n] = sums[n] * kept + exponentials(row, seen.width, scale, most[n]);
                    for (count i = 0; add && i < size; i++) sum[i] *= kept;
                }
                over_tokens(&b, values, at, seen, scores, to, heads * size, add);
            }
            for (count n = 0; n < at.rows; n++) {
                for (count i = 0; i < size; i++) to[n * heads * size + i] /= sums[n];
                normalisers[(token + n) * heads + at.head] = most[n] + logf(sums[n]);
            }
        }
        free(scores);
    }
    free(todo), free(keys), free(values), free(b.places);
}

/* Add to the vectors of a tile's keys, in `out` [T, A, D], the queries' vectors, in panels, by weights [rows, width]. */
INLINE void to_tokens(const batch *b, task at, tile to, const float *weights, const float *panels, float *out) {
    count width = b->heads * b->size;
    multiply_panels(weights, 1, STRIDE, panels, at.rows * WIDTH,
                    out + (b->starts[to.run] + to.first) * width + at.head * b->size, width, to.length, b->size, at.rows,
                    1);
}

/* What the gradients of a thread's tiles are made of. */
typedef struct {
    float *weights, *grads, *queries, *upstream;
} desk;

/* The gradients of a task's queries; those of keys and values come to to_keys and to_values [T, A, D]. */
static void task_backward(const batch *b, float *keys, float *keys_across, float *values, task at, const float *out,
                          const float *normalisers, const float *grad, float *to_qkv, float *to_keys, float *to_values,
                          desk own) {
    count size = b->size, width = b->heads * size, token = b->starts[at.run] + at.first;
    const float *query = b->qkv + token * b->row + at.head * size, *upstream = grad + token * width + at.head * size;
    float scale = 1.0f / sqrtf(size), along[QUERIES];
    for (count n = 0; n < at.rows; n++)
        along[n] = dot(upstream + n * width, out + token * width + at.head * size + n * width, size);
    pack_panels(query, own.queries, size, at.rows, 1, b->row);
    pack_panels(upstream, own.upstream, size, at.rows, 1, width);
    int add = 0;
    for (tile seen = first_tile(b, at); seen.length; seen = next_tile(b, at, seen), add = 1) {
        with_tokens(b, keys, at, seen, query, b->row, own.weights);
        with_tokens(b, values, at, seen, upstream, width, own.grads);
        for (count n = 0; n < at.rows; n++) {
            float *row = own.weights + n * STRIDE, *to = own.grads + n * STRIDE;
            hide(at, seen, n, row);
            exponentials(row, seen.width, scale, normalisers[(token + n) * b->heads + at.head]);
#pragma omp simd
            for (count i = 0; i < seen.width; i++) to[i] = row[i] * (to[i] - along[n]) * scale;
        }
        over_tokens(b, keys_across, at, seen, own.grads, to_qkv + token * b->row + at.head * size, b->row, add);
        to_tokens(b, at, seen, own.weights, own.upstream, to_values);
        to_tokens(b, at, seen, own.grads, own.queries, to_keys);
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
        count tile_size = QUERIES * STRIDE, panels_size = QUERIES * padded(size);
        float *memory = malloc(sizeof(float) * 2 * (tile_size + panels_size));
        desk own = {memory, memory + tile_size, memory + 2 * tile_size, memory + 2 * tile_size + panels_size};
#pragma omp for schedule(dynamic)
        for (count t = 0; t < num_runs * heads; t++) { /* runs that share keys are one thread's, in their order */
            count root = t / heads;
            for (count r = root; r < num_runs && b.parents[root] < 0; r++)
                for (count n = 0; (r == root || b.parents[r] == root) && n < blocks_of(b.lengths[r]); n++)
                    task_backward(&b, keys, keys_across, values, task_of(&b, r, t % heads, n), out, normalisers, grad,
                                  to_qkv, to_keys, to_values, own);
        }
        free(memory);
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
