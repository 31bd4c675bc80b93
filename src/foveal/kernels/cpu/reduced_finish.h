/* What happens to the sums of a convolution before they are stored. Included once per set of instructions, with
   Sum (int32_t or float). */
/* Scale, bias, residual and clamp of one row of sums; `count` outputs of the 32 exist. */
static inline __attribute__((always_inline)) void finish_row(
    const ReducedConvolution *v, const Sum *sums, int32_t o, int64_t at, int32_t count)
{
    float values[BLOCK_OUTPUTS], residual[BLOCK_OUTPUTS];
    const float *scale = v->scale + o, *bias = v->bias + o, low = v->low, high = v->high;
    for (int32_t i = 0; i < BLOCK_OUTPUTS; i++) values[i] = __builtin_fmaf((float)sums[i], scale[i], bias[i]);
    if (v->residual) {
        const float *factor = v->residual_scale + o;
        if (count < BLOCK_OUTPUTS) memset(residual, 0, sizeof residual);
        read_values(residual, v->residual, v->residual_type, at, count);
        for (int32_t i = 0; i < BLOCK_OUTPUTS; i++) values[i] = __builtin_fmaf(residual[i], factor[i], values[i]);
    }
    for (int32_t i = 0; i < BLOCK_OUTPUTS; i++) values[i] = within_limits(values[i], low, high);
    write_values(v->out, v->out_type, at, values, count);
}
