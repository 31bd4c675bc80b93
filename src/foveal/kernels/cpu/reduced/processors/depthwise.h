/* Depthwise convolution around the pixel of a block of channels. Included once per set of instructions, with PATH
   (the function's name), CHANNELS of a block, Sample (of the output), Limits (low and high of the output), Block, and the functions
   limits, prepare (what a block needs, once per task) and pixel. */

/* A line of one block of channels; `samples` [rows][pitch] are the addresses of all that the line sees. */
static inline __attribute__((always_inline)) void line_of(
    const ReducedConvolution *v, const Block *b, const uint8_t *const *samples, int32_t pitch, int32_t rows, int32_t columns, int64_t c, Sample *to)
{
    const Limits limit = limits(v);
    const uint8_t *taps[DEPTHWISE_TAPS];
    for (int32_t x = 0; x < v->out_width; x++, to += v->outputs) {
        for (int32_t i = 0; i < rows; i++)
            for (int32_t j = 0; j < columns; j++) taps[i * columns + j] = samples[i * pitch + x * v->stride + j * v->dilation];
        pixel(b, taps, rows * columns, c, &limit, to);
    }
}

void PATH(const ReducedConvolution *v, Team team) {
    const Samples *s = &v->in;
    const int64_t lines = s->tiles * v->out_height, size = lines_per_task(lines, &team), bytes = row_bytes(s);
    const int32_t blocks = (s->channels + CHANNELS - 1) / CHANNELS, taps = v->rows * v->columns;
    const int32_t pitch = (v->out_width - 1) * v->stride + (v->columns - 1) * v->dilation + 1;
    Block block[blocks];
    const uint8_t *samples[v->rows * pitch];
    for (int64_t first; (first = take(&team) * size) < lines;) {
        for (int32_t k = 0; k < blocks; k++) prepare(v, k * CHANNELS, taps, &block[k]);
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int32_t top = (int32_t)(line % v->out_height) * v->stride + s->top;
            for (int32_t i = 0; i < v->rows; i++)
                for (int32_t x = 0; x < pitch; x++)
                    samples[i * pitch + x] = row_address(s, sample_row(s, line / v->out_height, top + i * v->dilation, s->left + x), bytes);
            for (int32_t k = 0; k < blocks; k++) {
                Sample *to = (Sample *)v->out + line * v->out_width * v->outputs;
                if (v->rows == 3 && v->columns == 3) line_of(v, &block[k], samples, pitch, 3, 3, k * CHANNELS, to);
                else line_of(v, &block[k], samples, pitch, v->rows, v->columns, k * CHANNELS, to);
            }
        }
    }
}
