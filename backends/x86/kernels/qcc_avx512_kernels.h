/* The AVX512 kernels: params structs and functions. Conventions: qcc_kernels.h.
 *
 * scale: float, certified (see qcc_avx512vnni.h). Arrays with an entry for each channel are padded with zeros to whole
 * vectors, and those of the depthwise kernels are in the order of qcc_avx512_lanes.h.
 */
#ifndef QCC_AVX512_KERNELS_H
#define QCC_AVX512_KERNELS_H

#include "qcc_integer.h"
#include "qcc_movement.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- depthwise convolution */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t along_height;      /* of the image: columns are read along, four at a time; else rows */
  int32_t skip_zero_point;   /* of the residual operand */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx512_depthwise_params;

void qcc_s8_depthwise_conv2d_avx512vnni(const qcc_avx512_depthwise_params *params, const int8_t *QCC_RESTRICT input,
                                        const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                        const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                        const float *QCC_RESTRICT scale, int8_t *output);

/* ---------------------------------------------------------------- dense, few rows */

void qcc_s8_dense_avx512vnni(const qcc_dense_params *params, const int8_t *QCC_RESTRICT input,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                             const float *QCC_RESTRICT scale, int8_t *QCC_RESTRICT output);

void qcc_s8_dense_accumulator_avx512vnni(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                         int32_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- pooling and means */

/* factors: int32[output_height][output_width], or NULL where all are 1. */
void qcc_s8_avg_pool2d_avx512vnni(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                                  const int32_t *QCC_RESTRICT factors, const float *QCC_RESTRICT scale,
                                  int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch, count, channels;
  int32_t bias; /* minus count times the input's zero_point */
} qcc_avx512_sum_params;

void qcc_s8_sum_accumulator_avx512vnni(const qcc_avx512_sum_params *params, const int8_t *QCC_RESTRICT input,
                                       int32_t *QCC_RESTRICT output);

void qcc_s8_max_pool2d_avx512(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- elementwise */

/* As the scalar kernels of these names, with scale in place of multiplier and shift. */
void qcc_s8_add_avx512(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                       const float *QCC_RESTRICT scale, int8_t *output);

void qcc_s8_add_constant_avx512(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                                const int32_t *QCC_RESTRICT a_multiplier, const float *QCC_RESTRICT scale,
                                int8_t *output);

void qcc_s8_mul_avx512(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const float *QCC_RESTRICT scale, int8_t *output);

void qcc_s8_mul_constant_avx512(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                                const float *QCC_RESTRICT scale, int8_t *output);

/* ---------------------------------------------------------------- tables and softmax */

void qcc_s8_table_avx512(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                         int8_t *output);

void qcc_s8_softmax_pair_avx512(const qcc_softmax_params *params, const int8_t *input,
                                const int8_t *QCC_RESTRICT table, int8_t *output);

void qcc_s8_softmax_avx512(const qcc_softmax_params *params, const int8_t *input, const int32_t *QCC_RESTRICT table,
                           int8_t *output, void *workspace);

void qcc_s32_softmax_avx512(const qcc_wide_softmax_params *params, const int32_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            const int32_t *QCC_RESTRICT table, int8_t *QCC_RESTRICT output, void *workspace);

/* ---------------------------------------------------------------- movement */

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_avx512_interleave_params;

/* Tables of the axes one after the other, as in qcc_gather_params. */
typedef struct {
  int32_t before, run, after; /* bytes of an innermost row of the output: filled, copied, filled */
  int32_t fill;
  int32_t shape[5]; /* of the output, in such rows */
} qcc_avx512_gather_params;

void qcc_s8_gather_avx512(const qcc_avx512_gather_params *params, const int8_t *QCC_RESTRICT input,
                          const int32_t *QCC_RESTRICT index, int8_t *QCC_RESTRICT output);

void qcc_s8_copy_avx512(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output);

void qcc_concat_avx512(const qcc_concat_params *params, const void *const *inputs,
                       const int32_t *QCC_RESTRICT block_bytes, const void *QCC_RESTRICT constant,
                       void *QCC_RESTRICT output);

void qcc_s8_interleave_avx512(const qcc_avx512_interleave_params *params, const int8_t *QCC_RESTRICT input,
                              int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
