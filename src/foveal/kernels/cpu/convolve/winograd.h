/* Minimal filtering of 3x3 windows, once for every size of output square: include with SQUARE 2 or 4.

   A square of SQUARE x SQUARE outputs sees SIDE x SIDE inputs. Inputs and weights are transformed so that the
   convolution becomes SIDE * SIDE products of matrices, 2.25 or 4 times fewer multiplications in all.
   Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(x) JOIN(x, SQUARE)
#define SIDE (SQUARE + 2)
#define POINTS (SIDE * SIDE)

#if SQUARE == 2
static inline void NAME(to_points)(const vec *d, int step, vec *t) {
    t[0] = d[0] - d[2 * step];
    t[1] = d[step] + d[2 * step];
    t[2] = d[2 * step] - d[step];
    t[3] = d[step] - d[3 * step];
}
static inline void NAME(from_points)(const vec *m, int step, vec *y) {
    y[0] = m[0] + m[step] + m[2 * step];
    y[1] = m[step] - m[2 * step] - m[3 * step];
}
#else
static inline void NAME(to_points)(const vec *d, int step, vec *t) {
    const vec a = d[4 * step] - 4.0f * d[2 * step], b = d[3 * step] - 4.0f * d[step];
    const vec e = d[4 * step] - d[2 * step], f = 2.0f * (d[3 * step] - d[step]);
    t[0] = 4.0f * d[0] - 5.0f * d[2 * step] + d[4 * step];
    t[1] = a + b;
    t[2] = a - b;
    t[3] = e + f;
    t[4] = e - f;
    t[5] = 4.0f * d[step] - 5.0f * d[3 * step] + d[5 * step];
}
static inline void NAME(from_points)(const vec *m, int step, vec *y) {
    const vec a = m[step] + m[2 * step], b = m[step] - m[2 * step];
    const vec c = m[3 * step] + m[4 * step], d = m[3 * step] - m[4 * step];
    y[0] = m[0] + a + c;
    y[1] = b + 2.0f * d;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * d + m[5 * step];
}
#endif

/* Transform the inputs of one square: panel row `p` of every point. */
static void NAME(read_square)(const Convolution *v, const Square *q, float *panels, int64_t plane, int64_t p) {
    const float *rows[POINTS];
    for (int32_t i = 0; i < SIDE; i++)
        for (int32_t j = 0; j < SIDE; j++) {
            int32_t y = q->y + i, x = q->x + j; /* squares may hang over the end of a tile */
            if (v->in.index && (y >= v->in.height || x >= v->in.width)) rows[i * SIDE + j] = v->in.outside;
            else rows[i * SIDE + j] = row_of(&v->in, row_at(&v->in, q->tile, y, x));
        }
    for (int32_t c = 0; c < v->in.channels; c += LANES) {
        vec d[POINTS], t[POINTS], u[SIDE];
        for (int i = 0; i < POINTS; i++) d[i] = load(rows[i] + c);
        for (int j = 0; j < SIDE; j++) {
            NAME(to_points)(d + j, SIDE, u);
            for (int i = 0; i < SIDE; i++) t[i * SIDE + j] = u[i];
        }
        float *to = panels + (c / DEPTH * POINTS) * plane + p * PITCH + c % DEPTH;
        for (int i = 0; i < SIDE; i++) {
            NAME(to_points)(t + i * SIDE, 1, u);
            for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * plane, u[j]);
        }
    }
}

/* Transform the products of one square back, and finish `width` outputs from `o` on. */
static void NAME(write_square)(const Convolution *v, const Square *q, const float *products, int64_t plane, int32_t o, int32_t width) {
    for (int32_t k = 0; k < width; k += LANES) {
        vec m[POINTS], t[SQUARE * SIDE], u[SQUARE];
        const vec bias = v->tail.bias ? load(v->tail.bias + o + k) : (vec){};
        for (int i = 0; i < POINTS; i++) m[i] = load(products + i * plane + k);
        for (int j = 0; j < SIDE; j++) {
            NAME(from_points)(m + j, SIDE, u);
            for (int i = 0; i < SQUARE; i++) t[i * SIDE + j] = u[i];
        }
        for (int i = 0; i < q->rows; i++) {
            NAME(from_points)(t + i * SIDE, 1, u);
            int64_t at = q->out + (int64_t)i * v->out_width * v->outputs + o + k;
            for (int j = 0; j < q->columns; j++, at += v->outputs) {
                vec y = u[j] + bias;
                if (v->tail.residual) {
                    vec more = load(v->tail.residual + at);
                    if (v->tail.scale) more *= load(v->tail.scale + o + k);
                    y += more;
                }
                store(v->out + at, clamp(y, v->tail.low, v->tail.high));
            }
        }
    }
}

/* Outputs [from, to) of some squares. */
static void NAME(squares)(const Convolution *v, float *scratch, int64_t first, int64_t count, int32_t from, int32_t to) {
    const int64_t channels = v->in.channels, parts = (channels + DEPTH - 1) / DEPTH;
    const int64_t height = (count + PIXELS - 1) / PIXELS * PIXELS, plane = height * PITCH;
    float *products = scratch + parts * POINTS * plane;
    const Tail plain = {.low = -INFINITY, .high = INFINITY};
    Square q[MOST_SQUARES];
    for (int64_t p = 0; p < count; p++) {
        q[p] = square_at(v, first + p, SQUARE);
        NAME(read_square)(v, &q[p], scratch, plane, p);
    }
    for (int32_t o = from; o < to; o += OUTPUTS) {
        const float *w = v->weight + (int64_t)o * POINTS * channels;
        for (int64_t point = 0; point < POINTS; point++)
            for (int64_t part = 0; part < parts; part++) {
                const int64_t start = part * DEPTH, depth = channels - start < DEPTH ? channels - start : DEPTH;
                for (int64_t p = 0; p < height; p += PIXELS)
                    block(scratch + (part * POINTS + point) * plane + p * PITCH, 1, 0, depth,
                          w + (point * channels + start) * OUTPUTS,
                          products + (point * height + p) * OUTPUTS, OUTPUTS, &plain, 0, 0, part == 0, 0);
            }
        const int32_t width = to - o < OUTPUTS ? to - o : OUTPUTS;
        for (int64_t p = 0; p < count; p++)
            NAME(write_square)(v, &q[p], products + p * OUTPUTS, height * OUTPUTS, o, width);
    }
}

#undef JOIN_
#undef JOIN
#undef NAME
#undef SIDE
#undef POINTS
