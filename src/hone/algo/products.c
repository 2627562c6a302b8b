/* Products with weight matrices, as GotoBLAS orders them (Goto and van de Geijn 2008): the weights lie in panels of a few
 * columns of the result, a block of the other matrix stays in the second-level cache, a tile of the result in registers.
 *
 * All numbers are float32. Axes: N rows, K what is summed over, C columns. A number of the result is summed in an order
 * that depends on K alone, not on how many rows or threads there are: a row by itself gets the same bits.
 */
#include "kernels.h"

#define HEIGHT (LANES == 16 ? 12 : 6) /* rows of a tile: with two vectors of columns, 24 of 32 registers or 12 of 16 */
#define DEPTH (5120 / WIDTH)          /* of K, so that WIDTH * DEPTH weights stay in the first-level cache: 20 KB */
#define BLOCK 96                      /* rows, so that BLOCK * DEPTH numbers stay in the second-level cache */
#define SHARES 8                      /* parts of the work for each thread: cores are not always equally fast */
#define SMALL_PRODUCT (1 << 18)       /* multiplications for which waking a second thread takes longer than it saves */

/* How many columns a panel has on this processor. */
int panel_width(void) { return WIDTH; }

/* weight [C, K], whose element (c, k) lies at c * column_stride + k * depth_stride -> panels [C / WIDTH, K, WIDTH]; the
 * last one has zeros for the columns that are missing */
void pack_panels(const float *weight, float *panels, count columns, count depth, count column_stride,
                 count depth_stride) {
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

/* The same by several threads. */
void pack(const float *weight, float *panels, count columns, count depth, count column_stride, count depth_stride,
          int threads) {
#pragma omp parallel for num_threads(threads) if (columns * depth > SMALL_PRODUCT)
    for (count first = 0; first < columns; first += WIDTH)
        pack_panels(weight + first * column_stride, panels + first * depth, smaller(WIDTH, columns - first), depth,
                    column_stride, depth_stride);
}

/* `height` rows of x times a part of a panel; added to what is in `out` if `add`. */
INLINE void tile(const float *restrict x, count row_stride, count depth_stride, const float *restrict panel,
                 float *restrict out, count out_stride, count depth, const int height, int add) {
    vector sums[HEIGHT][2] = {};
    for (count k = 0; k < depth; k++) {
        vector left = *(vector *)(panel + k * WIDTH), right = *(vector *)(panel + k * WIDTH + LANES);
#pragma GCC unroll 12
        for (int n = 0; n < height; n++) {
            float number = x[n * row_stride + k * depth_stride];
            sums[n][0] += number * left;
            sums[n][1] += number * right;
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

/* The sums stay in registers where their number is known when this is compiled. */
static void tile_of(int height, const float *x, count row_stride, count depth_stride, const float *panel, float *out,
                    count out_stride, count depth, int add) {
    switch (height + (depth_stride == 1 ? 0 : HEIGHT)) {
#define CASE(ROWS)                                                                   \
    case ROWS: tile(x, row_stride, 1, panel, out, out_stride, depth, ROWS, add); break; \
    case ROWS + HEIGHT: tile(x, 1, depth_stride, panel, out, out_stride, depth, ROWS, add); break
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
#if LANES == 16
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

/* x [N, K], of whose strides one is 1, times a part of some panels, which are `panel_stride` apart -> out [N, C]; added
 * to what is there if `add` */
void multiply_panels(const float *x, count row_stride, count depth_stride, const float *panels, count panel_stride,
                     float *out, count out_stride, count rows, count columns, count depth, int add) {
    count tiles = (rows + HEIGHT - 1) / HEIGHT;
    for (count first = 0; first < columns; first += WIDTH, panels += panel_stride) {
        count width = smaller(WIDTH, columns - first), lines = depth * WIDTH / 16;
        int whole = width == WIDTH;
        float edge[HEIGHT * WIDTH];
        for (count t = 0; t < tiles; t++) {
            count top = rows * t / tiles, height = rows * (t + 1) / tiles - top;
            float *to = out + top * out_stride + first;
            for (count line = lines * t / tiles; line < lines * (t + 1) / tiles; line++)
                __builtin_prefetch(panels + panel_stride + line * 16, 0, 2); /* the next, while this is multiplied */
            tile_of(height, x + top * row_stride, row_stride, depth_stride, panels, whole ? to : edge,
                    whole ? out_stride : WIDTH, depth, whole && add);
            for (count n = 0; !whole && n < height; n++)
                for (count c = 0; c < width; c++)
                    to[n * out_stride + c] = edge[n * WIDTH + c] + (add ? to[n * out_stride + c] : 0);
        }
    }
}

/* x [N, K], panels of a weight [C, K], bias [C] or NULL -> out [N, C] = x weight^T + bias; added to what is there if
 * `add` */
void multiply(const float *x, const float *panels, const float *bias, float *out, count rows, count columns, count depth,
              int add, int threads) {
    count blocks = (rows + BLOCK - 1) / BLOCK, parts = (depth + DEPTH - 1) / DEPTH, num_panels = padded(columns) / WIDTH;
    count shares = blocks ? smaller(num_panels, (SHARES * threads + blocks - 1) / blocks) : 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (rows * columns * depth > SMALL_PRODUCT)
    for (count task = 0; task < blocks * shares; task++) {
        count block = task / shares, share = task % shares;
        count first_row = rows * block / blocks, height = rows * (block + 1) / blocks - first_row;
        count first = num_panels * share / shares * WIDTH;
        count width = smaller(columns, num_panels * (share + 1) / shares * WIDTH) - first;
        float *to = out + first_row * columns + first;
        for (count n = 0; bias && n < height; n++)
            for (count c = 0; c < width; c++) to[n * columns + c] = bias[first + c] + (add ? to[n * columns + c] : 0);
        for (count part = 0; part < parts; part++) {
            count start = depth * part / parts, span = depth * (part + 1) / parts - start;
            multiply_panels(x + first_row * depth + start, depth, 1, panels + first * depth + start * WIDTH,
                            depth * WIDTH, to, columns, height, width, span, add || bias || part);
        }
    }
}
