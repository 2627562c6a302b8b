/* Products with weight matrices, as GotoBLAS orders them (Goto and van de Geijn 2008): the weights lie in panels of a few
 * columns of the result, a block of the other matrix stays in the second-level cache, a tile of the result in registers.
 *
 * All numbers are float32. Axes: N rows, K what is summed over, C columns. A number of the result is summed in an order
 * that depends on K alone, not on how many rows or threads there are: a row by itself gets the same bits.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef int64_t count;

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__)
#define LANES 16
#define HEIGHT 12 /* rows of a tile: with two vectors of columns they fill 24 of 32 registers, or 12 of 16 */
#elif defined(__AVX__)
#define LANES 8
#define HEIGHT 6
#else
#define LANES 4
#define HEIGHT 6
#endif
#define WIDTH (2 * LANES) /* columns of a panel and of a tile */
#define DEPTH 320         /* of K, so that WIDTH * DEPTH weights stay in the first-level cache */
#define BLOCK 96          /* rows, so that BLOCK * DEPTH numbers stay in the second-level cache */
#define SHARES 8          /* parts of the work for each thread: cores are not always equally fast */
#define SMALL (1 << 18)   /* multiplications for which waking a second thread takes longer than it saves */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE count smaller(count a, count b) { return a < b ? a : b; }

/* How many columns a panel has on this processor. */
count panel_width(void) { return WIDTH; }

/* weight [C, K], whose element (c, k) lies at c * column_stride + k * depth_stride -> panels [C / WIDTH, K, WIDTH]; the
 * last one has zeros for the columns that are missing */
void pack(const float *weight, float *panels, count columns, count depth, count column_stride, count depth_stride,
          int threads) {
#pragma omp parallel for num_threads(threads) if (columns * depth > SMALL)
    for (count first = 0; first < columns; first += WIDTH) {
        const float *from = weight + first * column_stride;
        float *to = panels + first * depth;
        count width = smaller(WIDTH, columns - first);
        if (width < WIDTH) memset(to, 0, sizeof(float) * depth * WIDTH);
        if (width == WIDTH && column_stride == 1)
            for (count k = 0; k < depth; k++) memcpy(to + k * WIDTH, from + k * depth_stride, sizeof(float) * WIDTH);
        else
            for (count k = 0; k < depth; k++)
                for (count c = 0; c < width; c++) to[k * WIDTH + c] = from[c * column_stride + k * depth_stride];
    }
}

/* `height` rows of x, `x_stride` apart, times a part of a panel; added to what is in `out` if `add`. */
INLINE void tile(const float *restrict x, count x_stride, const float *restrict panel, float *restrict out,
                 count out_stride, count depth, const int height, int add) {
    vector sums[HEIGHT][2] = {};
    for (count k = 0; k < depth; k++) {
        vector left = *(vector *)(panel + k * WIDTH), right = *(vector *)(panel + k * WIDTH + LANES);
#pragma GCC unroll 12
        for (int n = 0; n < height; n++) {
            sums[n][0] += x[n * x_stride + k] * left;
            sums[n][1] += x[n * x_stride + k] * right;
        }
    }
#pragma GCC unroll 12
    for (int n = 0; n < height; n++) {
        vector *to = (vector *)(out + n * out_stride);
        if (add) sums[n][0] += to[0], sums[n][1] += to[1];
        to[0] = sums[n][0];
        to[1] = sums[n][1];
    }
}

static void tile_of(int height, const float *x, count x_stride, const float *panel, float *out, count out_stride,
                    count depth, int add) {
    switch (height) { /* sums stay in registers where their number is known when this is compiled */
#define CASE(ROWS) \
    case ROWS: tile(x, x_stride, panel, out, out_stride, depth, ROWS, add); break
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
#if HEIGHT > 6
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
        CASE(12);
#endif
#undef CASE
    }
}

/* x [N, K], panels of a weight [C, K], bias [C] or NULL -> out [N, C] = x weight^T + bias */
void multiply(const float *x, const float *panels, const float *bias, float *out, count rows, count columns, count depth,
              int threads) {
    count blocks = (rows + BLOCK - 1) / BLOCK, parts = (depth + DEPTH - 1) / DEPTH;
    count num_panels = (columns + WIDTH - 1) / WIDTH;
    count shares = blocks ? smaller(num_panels, (SHARES * threads + blocks - 1) / blocks) : 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (rows * columns * depth > SMALL)
    for (count task = 0; task < blocks * shares; task++) {
        count block = task / shares, share = task % shares;
        count first_row = rows * block / blocks, height = rows * (block + 1) / blocks - first_row;
        count first_panel = num_panels * share / shares, end_panel = num_panels * (share + 1) / shares;
        count tiles = (height + HEIGHT - 1) / HEIGHT;
        for (count part = 0; part < parts; part++) {
            count start = depth * part / parts, span = depth * (part + 1) / parts - start;
            for (count p = first_panel; p < end_panel; p++) {
                const float *panel = panels + (p * depth + start) * WIDTH, *next = panel + depth * WIDTH;
                float *corner = out + first_row * columns + p * WIDTH, edge[HEIGHT * WIDTH];
                count width = smaller(WIDTH, columns - p * WIDTH), lines = span * WIDTH / 16;
                int add = bias || part, whole = width == WIDTH;
                if (bias && !part)
                    for (count n = 0; n < height; n++)
                        memcpy(corner + n * columns, bias + p * WIDTH, sizeof(float) * width);
                for (count t = 0; t < tiles; t++) {
                    count top = height * t / tiles, size = height * (t + 1) / tiles - top;
                    const float *from = x + (first_row + top) * depth + start;
                    float *to = corner + top * columns;
                    for (count line = lines * t / tiles; line < lines * (t + 1) / tiles; line++)
                        __builtin_prefetch(next + line * 16, 0, 2); /* while this panel's part is multiplied */
                    tile_of(size, from, depth, panel, whole ? to : edge, whole ? columns : WIDTH, span, whole && add);
                    for (count n = 0; !whole && n < size; n++)
                        for (count c = 0; c < width; c++)
                            to[n * columns + c] = edge[n * WIDTH + c] + (add ? to[n * columns + c] : 0);
                }
            }
        }
    }
}
