/* What happens to the sums of a convolution before they are stored. Included once per set of instructions, with
   Sum (int32_t or float). */

/* Scale, bias, residual and clamp of one row of sums; `count` outputs of the 32 exist. Types are known when this
   is compiled: -1 stands for no residual. */
static inline __attribute__((always_inline)) void finish_row(
    const ReducedConvolution *v, const Sum *sums, int32_t o, int64_t at, int32_t count, int32_t out_type, int32_t residual_type)
{
    float values[BLOCK_OUTPUTS], residual[BLOCK_OUTPUTS] = {0};
    const float *scale = v->scale + o, *bias = v->bias + o, *factor = v->residual_scale + o, low = v->low, high = v->high;
    if (residual_type >= 0) read_values(residual, v->residual, residual_type, at, count);
    for (int32_t i = 0; i < BLOCK_OUTPUTS; i++) {
        float value = __builtin_fmaf((float)sums[i], scale[i], bias[i]);
        if (residual_type >= 0) value = __builtin_fmaf(residual[i], factor[i], value);
        values[i] = within_limits(value, low, high);
    }
    const int real = (Sum)0.5f == 0 && (residual_type < 0 || residual_type == U8); /* integers alone came in */
    if (out_type == U8 && !real) notice_unreal(values, count, v->unreal);
    write_values(v->out, out_type, at, values, count);
}

static inline __attribute__((always_inline)) void finish_rows(
    const ReducedConvolution *v, const Sum *sums, int64_t pixel, int64_t rows, int32_t o, int32_t count, int32_t out_type,
    int32_t residual_type)
{
    for (int64_t r = 0; r < rows; r++)
        finish_row(v, sums + r * BLOCK_OUTPUTS, o, (pixel + r) * v->outputs + o, count, out_type, residual_type);
}

/* Rows of one block from a pixel and an output on. Whole blocks of the usual types have code of their own. */
static void finish_block(const ReducedConvolution *v, const Sum *sums, int64_t pixel, int64_t rows, int32_t o) {
    const int32_t residual = v->residual ? v->residual_type : -1, width = v->outputs - o;
    if (width < BLOCK_OUTPUTS) finish_rows(v, sums, pixel, rows, o, width, v->out_type, residual);
    else if (v->out_type == U8 && residual < 0) finish_rows(v, sums, pixel, rows, o, BLOCK_OUTPUTS, U8, -1);
    else if (v->out_type == U8 && residual == U8) finish_rows(v, sums, pixel, rows, o, BLOCK_OUTPUTS, U8, U8);
    else if (v->out_type == BF16 && residual < 0) finish_rows(v, sums, pixel, rows, o, BLOCK_OUTPUTS, BF16, -1);
    else if (v->out_type == BF16 && residual == BF16) finish_rows(v, sums, pixel, rows, o, BLOCK_OUTPUTS, BF16, BF16);
    else finish_rows(v, sums, pixel, rows, o, BLOCK_OUTPUTS, v->out_type, residual);
}
