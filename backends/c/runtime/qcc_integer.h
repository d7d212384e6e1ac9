/* Integer kernels besides convolution, dense, sums and products: tables, pooling, reductions, softmax, resizing,
 * products of two activations, and the float boundary. */
#ifndef QCC_INTEGER_H
#define QCC_INTEGER_H

#include "qcc_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- tables */

typedef struct {
  int32_t rows;
  int32_t channels; /* tables: 1 for all elements, or one for each channel */
} qcc_table_params;

/* table: int8[channels][256], entry x + 128. The output may be written over the input. */
void qcc_s8_table_scalar(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                         int8_t *output);

/* ---------------------------------------------------------------- float boundary */

typedef struct {
  int32_t count;
  int32_t zero_point;
  float scale;
} qcc_quantize_params;

void qcc_f32_quantize_scalar(const qcc_quantize_params *params, const float *QCC_RESTRICT input,
                             int8_t *QCC_RESTRICT output);
void qcc_s8_dequantize_scalar(const qcc_quantize_params *params, const int8_t *QCC_RESTRICT input,
                              float *QCC_RESTRICT output);

/* ---------------------------------------------------------------- pooling */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
} qcc_max_pool2d_params;

void qcc_s8_max_pool2d_scalar(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
  int32_t input_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or channels */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_avg_pool2d_params;

/* factors: int32[output_height][output_width], or NULL where all are 1. */
void qcc_s8_avg_pool2d_scalar(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                              const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT multiplier,
                              const int32_t *QCC_RESTRICT shift, int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- resizing */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t one; /* the two weights of each axis add up to it */
  int32_t input_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or channels */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_resize_linear_params;

/* rows: int32[output_height][2], row_weights: int32[output_height], weight of the second row; columns likewise. */
void qcc_s8_resize_linear_scalar(const qcc_resize_linear_params *params, const int8_t *QCC_RESTRICT input,
                                 const int32_t *QCC_RESTRICT rows, const int32_t *QCC_RESTRICT row_weights,
                                 const int32_t *QCC_RESTRICT columns, const int32_t *QCC_RESTRICT column_weights,
                                 const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                 int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- reductions */

/* Axes that stay and axes that are reduced, each with the strides of the input in elements. Unused leading axes
 * have size 1. */
typedef struct {
  int32_t kept[3], kept_strides[3];
  int32_t reduced[3], reduced_strides[3];
  int32_t bias;                /* minus the number of reduced elements times the input's zero_point */
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or size of the output's last axis */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_reduce_sum_params;

void qcc_s8_reduce_sum_scalar(const qcc_reduce_sum_params *params, const int8_t *QCC_RESTRICT input,
                              const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                              int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t minimum; /* 0: the largest element, 1: the smallest */
  int32_t kept[3], kept_strides[3];
  int32_t reduced[3], reduced_strides[3];
} qcc_reduce_extreme_params;

void qcc_s8_reduce_extreme_scalar(const qcc_reduce_extreme_params *params, const int8_t *QCC_RESTRICT input,
                                  int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- softmax over the last axis */

typedef struct {
  int32_t rows, count;
} qcc_softmax_params;

/* The output may be written over the input. */
void qcc_s8_softmax_scalar(const qcc_softmax_params *params, const int8_t *input,
                           const int32_t *QCC_RESTRICT table, int8_t *output);

/* ---------------------------------------------------------------- accumulators in memory, and their softmax */

typedef struct {
  int32_t rows;
  int32_t input_channels, output_channels;
} qcc_dense_accumulator_params;

void qcc_s8_dense_accumulator_scalar(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                     const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                     int32_t *QCC_RESTRICT output);

typedef struct {
  int32_t kept[3], kept_strides[3];
  int32_t reduced[3], reduced_strides[3];
  int32_t bias; /* minus the number of reduced elements times the input's zero_point */
} qcc_reduce_sum_accumulator_params;

void qcc_s8_reduce_sum_accumulator_scalar(const qcc_reduce_sum_accumulator_params *params,
                                          const int8_t *QCC_RESTRICT input, int32_t *QCC_RESTRICT output);

typedef struct {
  int32_t rows, count;
  int32_t channels; /* entries of multiplier and shift: 1 or count */
} qcc_wide_softmax_params;

void qcc_s32_softmax_scalar(const qcc_wide_softmax_params *params, const int32_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            const int32_t *QCC_RESTRICT table, int8_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- transposed convolution */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* rows and columns cut off before the output */
  int32_t groups;
  int32_t input_zero_point;
  int32_t skip_zero_point; /* of the residual operand */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_conv_transpose2d_params;

/* skip and skip_multiplier may be NULL; the output may be written over skip. */
void qcc_s8_conv_transpose2d_scalar(const qcc_conv_transpose2d_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                    int8_t *output);

/* ---------------------------------------------------------------- matrix product */

typedef struct {
  int32_t batch[4];                   /* leading axes of the output */
  int32_t a_strides[4], b_strides[4]; /* in elements, 0 along broadcast axes */
  int32_t rows, columns, depth;
  int32_t a_zero_point, b_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or columns */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_matmul_params;

/* The operand that is NULL is the constant. */
void qcc_s8_matmul_scalar(const qcc_matmul_params *params, const int8_t *QCC_RESTRICT a,
                          const int8_t *QCC_RESTRICT b, const int8_t *QCC_RESTRICT constant,
                          const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                          int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
