/* What the kernels of tensors with 16 bits for the DSP extension share; see qcc_arm_dsp.h.
 *
 * input_bytes, skip_bytes, a_bytes, b_bytes and output_bytes are 1 for int8 and 2 for int16. Sums are int32 and wrap around;
 * the compiler proves where they end. Results have up to 16 bits, so that shifts below 33 occur: the compiler then moves
 * the accumulator up, which it proves to stay within 32 bits, as often as is missing:
 *   (acc * multiplier + 2^(shift - 1)) >> shift = ((acc << up) * multiplier + 2^(shift + up - 1)) >> (shift + up)
 */
#ifndef QCC_ARM_DSP_WIDE_H
#define QCC_ARM_DSP_WIDE_H

#include "qcc_arm_dsp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As qcc_wide_conv2d_params; channels: int32[output_channels][4] of bias, multiplier, shift + up - 32 and up, see above. */
typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
  int32_t pad_value;
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_dsp_wide_conv2d_params;

void qcc_s16_conv2d_dsp(const qcc_dsp_wide_conv2d_params *params, const void *input, const void *skip,
                        const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                        const int32_t *QCC_RESTRICT skip_multiplier, void *output, void *workspace);

void qcc_s16_depthwise_conv2d_dsp(const qcc_dsp_wide_conv2d_params *params, const void *QCC_RESTRICT input,
                                  const void *skip, const int16_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT channels, const int32_t *QCC_RESTRICT skip_multiplier,
                                  void *output, void *workspace);

typedef struct {
  int32_t input_channels, output_channels;
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_dsp_wide_dense_params;

void qcc_s16_dense_dsp(const qcc_dsp_wide_dense_params *params, const void *QCC_RESTRICT input, const void *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, void *output);

typedef struct {
  int32_t count;
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t a_multiplier, b_multiplier;
  int32_t bias; /* of the zero_points */
  int32_t multiplier, shift, up;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_dsp_wide_add_params;

void qcc_s16_add_dsp(const qcc_dsp_wide_add_params *params, const void *a, const void *b, void *output);

static inline __attribute__((always_inline)) int32_t qcc_dsp_load(const void *data, ptrdiff_t index, int32_t bytes) {
  return bytes == 2 ? ((const int16_t *)data)[index] : ((const int8_t *)data)[index];
}

/* acc + x * multiplier, modulo 2^32. */
static inline int32_t qcc_dsp_mac(int32_t acc, int32_t x, int32_t multiplier) {
  return (int32_t)((uint32_t)acc + (uint32_t)x * (uint32_t)multiplier);
}

/* As qcc_dsp_channel_at. */
static inline qcc_dsp_channel qcc_dsp_wide_channel(int32_t multiplier, int32_t shift, int32_t zero_point) {
  qcc_dsp_channel c;
  c.bias = 0;
  c.multiplier = multiplier;
  c.shift = shift;
  c.rounding = (int32_t)((uint32_t)(2 * zero_point + 1) << (shift - 1));
  return c;
}

/* Requantizes and stores; [low, high] lies within the type of the output. */
static inline __attribute__((always_inline)) void qcc_dsp_store(void *output, ptrdiff_t at, int32_t bytes, int32_t acc,
                                                                int32_t up, qcc_dsp_channel c, int32_t low,
                                                                int32_t high) {
  int32_t value;
  acc = (int32_t)((uint32_t)acc << up);
  __asm__("smmla %0, %1, %2, %3" : "=r"(value) : "r"(acc), "r"(c.multiplier), "r"(c.rounding));
  value = qcc_dsp_clamp(value >> c.shift, low, high);
  if (bytes == 2) {
    ((int16_t *)output)[at] = (int16_t)value;
  } else {
    ((int8_t *)output)[at] = (int8_t)value;
  }
}

#ifdef __cplusplus
}
#endif

#endif
