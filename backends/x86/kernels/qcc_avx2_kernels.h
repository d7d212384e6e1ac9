/* The AVX2 and AVX-VNNI kernels: params structs and functions. Conventions: qcc_kernels.h.
 *
 * scale: float, certified (see qcc_avx2.h). The head of each .c file gives the layouts of its constants. No intrinsics here:
 * any code may include this.
 */
#ifndef QCC_AVX2_KERNELS_H
#define QCC_AVX2_KERNELS_H

#include "qcc_integer.h"

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
  int32_t skip_zero_point;   /* of the residual operand */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx2_conv2d_params;

void qcc_s8_conv2d_avx2(const qcc_avx2_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                        const int16_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                        const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale, int8_t *output,
                        void *workspace);
void qcc_s8_conv2d_avxvnni(const qcc_avx2_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                           const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                           const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale, int8_t *output,
                           void *workspace);

void qcc_s8_depthwise_conv2d_avx2(const qcc_avx2_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                  const int8_t *skip, const int16_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                  const float *QCC_RESTRICT scale, int8_t *output, void *workspace);
void qcc_s8_depthwise_conv2d_avxvnni(const qcc_avx2_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                     const int8_t *skip, const int16_t *QCC_RESTRICT weights,
                                     const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                     const float *QCC_RESTRICT scale, int8_t *output, void *workspace);

typedef struct {
  int32_t input_channels, output_channels;
  int32_t skip_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_avx2_dense_params;

void qcc_s8_dense_avx2(const qcc_avx2_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                       const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale, int8_t *output,
                       void *workspace);
void qcc_s8_dense_avxvnni(const qcc_avx2_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                          const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                          const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale, int8_t *output,
                          void *workspace);

/* ---------------------------------------------------------------- pooling and means */

/* factors: int32[output_height][output_width], or NULL where all are 1; scale: float[channels rounded up to 16]. */
void qcc_s8_avg_pool2d_avx2(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT factors, const float *QCC_RESTRICT scale,
                            int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch, count, channels;
  int32_t bias; /* minus count times the input's zero_point */
} qcc_avx2_sum_params;

void qcc_s8_sum_accumulator_avx2(const qcc_avx2_sum_params *params, const int8_t *QCC_RESTRICT input,
                                 int32_t *QCC_RESTRICT output);

void qcc_s8_max_pool2d_avx2(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- elementwise */

/* As the scalar kernels of these names, with scale in place of multiplier and shift. */
void qcc_s8_add_avx2(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                     const float *QCC_RESTRICT scale, int8_t *output);

void qcc_s8_add_constant_avx2(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT a_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output);

void qcc_s8_mul_avx2(const qcc_binary_params *params, const int8_t *a, const int8_t *b, const float *QCC_RESTRICT scale,
                     int8_t *output);

void qcc_s8_mul_constant_avx2(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                              const float *QCC_RESTRICT scale, int8_t *output);

/* ---------------------------------------------------------------- movement */

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_avx2_interleave_params;

void qcc_s8_interleave_avx2(const qcc_avx2_interleave_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
