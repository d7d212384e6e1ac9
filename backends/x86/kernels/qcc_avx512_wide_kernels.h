/* The AVX512 kernels of tensors with 16 bits: params structs and functions. Conventions: qcc_wide.h.
 *
 * The fields input_bytes, skip_bytes, a_bytes, b_bytes and output_bytes are 1 for int8 and 2 for int16. Constants with an
 * entry for each channel are padded with zeros to whole vectors, in the order of qcc_avx512_wide.h.
 */
#ifndef QCC_AVX512_WIDE_KERNELS_H
#define QCC_AVX512_WIDE_KERNELS_H

#include "qcc_wide.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- convolution and dense */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t input_step;        /* elements from input pixel to pixel, input_channels * groups or more */
  int32_t output_step;       /* elements from output pixel to pixel, and of the skip operand */
  int32_t groups;            /* channels are those of one group */
  int32_t vectors;           /* 1 to 4: a block has 16 times as many output channels */
  int32_t skip_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx512_wide_conv_params;

void qcc_s16_conv2d_avx512vnni(const qcc_avx512_wide_conv_params *params, const int16_t *QCC_RESTRICT input,
                               const void *skip, const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                               const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                               const int32_t *QCC_RESTRICT shift, void *output, void *workspace);

void qcc_s8_conv2d_s16_avx512vnni(const qcc_avx512_wide_conv_params *params, const int8_t *QCC_RESTRICT input,
                                  const void *skip, const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                  const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                                  const int32_t *QCC_RESTRICT shift, void *output, void *workspace);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx512_wide_depthwise_params;

void qcc_s16_depthwise_conv2d_avx512vnni(const qcc_avx512_wide_depthwise_params *params, const void *QCC_RESTRICT input,
                                         const void *skip, const int8_t *QCC_RESTRICT weights,
                                         const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                         const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                         void *output);

/* ---------------------------------------------------------------- elementwise */

typedef struct {
  int32_t count;
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t a_multiplier, b_multiplier;
  int32_t bias;
  int32_t multiplier, shift;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx512_wide_add_params;

void qcc_s16_add_avx512vnni(const qcc_avx512_wide_add_params *params, const void *a, const void *b, void *output);

#ifdef __cplusplus
}
#endif

#endif
