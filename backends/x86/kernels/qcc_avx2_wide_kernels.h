/* The AVX2 and AVX-VNNI kernels of tensors with 16 bits: params structs and functions. Conventions: qcc_wide.h.
 *
 * The fields input_bytes, skip_bytes, a_bytes, b_bytes and output_bytes are 1 for int8 and 2 for int16. Constants with an
 * entry for each channel are padded with zeros to whole vectors, in the order of qcc_avx2.h.
 */
#ifndef QCC_AVX2_WIDE_KERNELS_H
#define QCC_AVX2_WIDE_KERNELS_H

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
  int32_t band;              /* rows of output that are computed from one copy in the workspace */
  int32_t vectors;           /* of 8 channels, of the largest blocks: 2, or 8 where there is one pixel */
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx2_wide_conv2d_params;

void qcc_s16_conv2d_avx2(const qcc_avx2_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, void *output, void *workspace);
void qcc_s16_conv2d_avxvnni(const qcc_avx2_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                            const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                            const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                            const int32_t *QCC_RESTRICT shift, void *output, void *workspace);

/* ---------------------------------------------------------------- sums */

typedef struct {
  int32_t batch, count, channels;
  int32_t bias; /* minus count times the input's zero_point */
  int32_t input_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx2_wide_sum_params;

void qcc_s16_sum_avx2(const qcc_avx2_wide_sum_params *params, const void *QCC_RESTRICT input,
                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                      void *QCC_RESTRICT output);

typedef struct {
  int32_t count;
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t a_multiplier, b_multiplier;
  int32_t bias;
  int32_t multiplier, shift;
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx2_wide_add_params;

void qcc_s16_add_avx2(const qcc_avx2_wide_add_params *params, const void *a, const void *b, void *output);

/* ---------------------------------------------------------------- movement */

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_avx2_wide_interleave_params;

void qcc_s16_interleave_avx2(const qcc_avx2_wide_interleave_params *params, const int16_t *QCC_RESTRICT input,
                             int16_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
