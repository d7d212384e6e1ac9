/* Kernels of steps with tensors of 16 bits: any of the inputs, the output, or all of them.
 *
 * The fields input_bytes, skip_bytes, a_bytes, b_bytes and output_bytes are 1 for int8 and 2 for int16. int16 is
 * symmetric: its zero_point is 0. Sums are 64 bits wide. Where they may pass 32, the compiler chose multipliers of fewer
 * bits, so that acc * multiplier stays within 64. The rest is as in qcc_kernels.h; kernels whose tensors all have one type have
 * the params of their counterparts in qcc_integer.h.
 */
#ifndef QCC_WIDE_H
#define QCC_WIDE_H

#include "qcc_integer.h"
#include "qcc_requantize.h"

#ifdef __cplusplus
extern "C" {
#endif

/* So many products of int16 and int8 add up within int32, whatever they are: 480 * 2^7 * 2^15. */
#define QCC_WIDE_RUN 480

static inline int32_t qcc_wide_load(const void *data, ptrdiff_t index, int32_t bytes) {
  return bytes == 2 ? ((const int16_t *)data)[index] : ((const int8_t *)data)[index];
}

/* Requantize `acc` (see qcc_requantize.h) and store it. [low, high] lies within the type of the output. */
static inline void qcc_wide_store(void *data, ptrdiff_t index, int32_t bytes, int64_t acc, int32_t multiplier,
                                  int32_t shift, int32_t zero_point, int32_t low, int32_t high) {
  const int64_t rounding = (int64_t)1 << (shift - 1);
  int64_t value = ((acc * multiplier + rounding) >> shift) + zero_point;
  value = value < low ? low : value;
  value = value > high ? high : value;
  if (bytes == 2) {
    ((int16_t *)data)[index] = (int16_t)value;
  } else {
    ((int8_t *)data)[index] = (int8_t)value;
  }
}

/* ---------------------------------------------------------------- convolution and dense */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
  int32_t pad_value;
  int32_t groups;
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t skip_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_conv2d_params;

void qcc_wide_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                            const int8_t *QCC_RESTRICT weights, const int64_t *QCC_RESTRICT bias,
                            const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                            const int32_t *QCC_RESTRICT shift, void *output);

/* weights: two of 4 bits in a byte; workspace: the bytes of four unpacked filters. */
void qcc_s4_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                          const uint8_t *QCC_RESTRICT weights, const int64_t *QCC_RESTRICT bias,
                          const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                          const int32_t *QCC_RESTRICT shift, void *output, void *workspace);

/* One input channel for each output channel, at most QCC_WIDE_RUN taps; weights [kernel_height][kernel_width][channels]. */
void qcc_wide_depthwise_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input,
                                      const void *skip, const int8_t *QCC_RESTRICT weights,
                                      const int64_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                      void *output);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* rows and columns cut off before the output */
  int32_t groups;
  int32_t input_bytes, skip_bytes, output_bytes;
  int32_t input_zero_point, skip_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_conv_transpose2d_params;

void qcc_wide_conv_transpose2d_scalar(const qcc_wide_conv_transpose2d_params *params, const void *QCC_RESTRICT input,
                                      const void *skip, const int8_t *QCC_RESTRICT weights,
                                      const int64_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                      void *output);

typedef struct {
  int32_t batch[4];                   /* leading axes of the output */
  int32_t a_strides[4], b_strides[4]; /* in elements, 0 along broadcast axes */
  int32_t rows, columns, depth;
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t a_zero_point, b_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or columns */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_matmul_params;

/* The operand that is NULL is the constant. */
void qcc_wide_matmul_scalar(const qcc_wide_matmul_params *params, const void *QCC_RESTRICT a,
                            const void *QCC_RESTRICT b, const int8_t *QCC_RESTRICT constant,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            void *QCC_RESTRICT output);

/* ---------------------------------------------------------------- elementwise */

/* Broadcasting over at most four merged axes; a stride of 0 repeats the operand along that axis. */
typedef struct {
  int32_t count[4];
  int32_t a_stride[4], b_stride[4]; /* in elements */
  int32_t a_zero_point, b_zero_point;
  int32_t per_channel; /* 1: multipliers and shifts have count[3] values, 0: one value */
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_binary_params;

/* b is NULL where the second operand is the constant, which is at the scale of the sum. */
void qcc_wide_add_scalar(const qcc_wide_binary_params *params, const void *a, const void *b,
                         const int64_t *QCC_RESTRICT constant, const int32_t *QCC_RESTRICT a_multiplier,
                         const int32_t *QCC_RESTRICT b_multiplier, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, void *output);

/* b is NULL where the second operand is the constant, its zero_point subtracted. */
void qcc_wide_mul_scalar(const qcc_wide_binary_params *params, const void *a, const void *b,
                         const int16_t *QCC_RESTRICT constant, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, void *output);

typedef struct {
  int32_t rows, channels; /* channels is 1 and rows the number of elements when there is one multiplier */
  int32_t input_bytes, output_bytes;
  int32_t input_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_requantize_params;

void qcc_wide_requantize_scalar(const qcc_wide_requantize_params *params, const void *input,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                void *output);

typedef qcc_table_params qcc_wide_table_params;

/* table: int16[channels][256], entry x + 128. */
void qcc_wide_table_scalar(const qcc_wide_table_params *params, const int8_t *QCC_RESTRICT input,
                           const int16_t *QCC_RESTRICT table, int16_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- pooling and reductions */

typedef qcc_max_pool2d_params qcc_wide_max_pool2d_params;

void qcc_s16_max_pool2d_scalar(const qcc_wide_max_pool2d_params *params, const int16_t *QCC_RESTRICT input,
                               int16_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
  int32_t input_bytes, output_bytes;
  int32_t input_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or channels */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_avg_pool2d_params;

/* factors: int32[output_height][output_width], or NULL where all are 1. */
void qcc_wide_avg_pool2d_scalar(const qcc_wide_avg_pool2d_params *params, const void *QCC_RESTRICT input,
                                const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT multiplier,
                                const int32_t *QCC_RESTRICT shift, void *QCC_RESTRICT output);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t one; /* the two weights of each axis add up to it */
  int32_t input_bytes, output_bytes;
  int32_t input_zero_point;
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or channels */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_resize_linear_params;

/* rows: int32[output_height][2], row_weights: int32[output_height], weight of the second row; columns likewise. */
void qcc_wide_resize_linear_scalar(const qcc_wide_resize_linear_params *params, const void *QCC_RESTRICT input,
                                   const int32_t *QCC_RESTRICT rows, const int32_t *QCC_RESTRICT row_weights,
                                   const int32_t *QCC_RESTRICT columns, const int32_t *QCC_RESTRICT column_weights,
                                   const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                   void *QCC_RESTRICT output);

/* Axes that stay and axes that are reduced, each with the strides of the input in elements. Unused leading axes
 * have size 1. */
typedef struct {
  int32_t kept[3], kept_strides[3];
  int32_t reduced[3], reduced_strides[3];
  int32_t input_bytes, output_bytes;
  int32_t bias;                /* minus the number of reduced elements times the input's zero_point */
  int32_t requantize_channels; /* entries of multiplier and shift: 1, or size of the output's last axis */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_wide_reduce_sum_params;

void qcc_wide_reduce_sum_scalar(const qcc_wide_reduce_sum_params *params, const void *QCC_RESTRICT input,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                void *QCC_RESTRICT output);

typedef qcc_reduce_extreme_params qcc_wide_reduce_extreme_params;

void qcc_s16_reduce_extreme_scalar(const qcc_wide_reduce_extreme_params *params, const int16_t *QCC_RESTRICT input,
                                   int16_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- accumulators in memory, softmax */

typedef qcc_dense_accumulator_params qcc_wide_dense_accumulator_params;

void qcc_wide_dense_accumulator_scalar(const qcc_wide_dense_accumulator_params *params,
                                       const int16_t *QCC_RESTRICT input, const int8_t *QCC_RESTRICT weights,
                                       const int64_t *QCC_RESTRICT bias, int64_t *QCC_RESTRICT output);

typedef qcc_reduce_sum_accumulator_params qcc_wide_reduce_sum_accumulator_params;

void qcc_wide_reduce_sum_accumulator_scalar(const qcc_wide_reduce_sum_accumulator_params *params,
                                            const int16_t *QCC_RESTRICT input, int64_t *QCC_RESTRICT output);

typedef struct {
  int32_t rows, count;
  int32_t channels; /* entries of multiplier and shift: 1 or count */
  int32_t input_bytes, output_bytes;
  int32_t bits; /* 8 for int8, 15 for int16: results are fractions of 2^bits */
  int32_t output_zero_point;
} qcc_any_softmax_params;

/* input_bytes may also be 4 and 8: accumulators. */
void qcc_wide_softmax_scalar(const qcc_any_softmax_params *params, const void *QCC_RESTRICT input,
                             const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                             const int32_t *QCC_RESTRICT table, void *QCC_RESTRICT output);

/* ---------------------------------------------------------------- float boundary */

typedef struct {
  int32_t count;
  float scale;
} qcc_wide_quantize_params;

void qcc_f32_quantize_wide_scalar(const qcc_wide_quantize_params *params, const float *QCC_RESTRICT input,
                                  int16_t *QCC_RESTRICT output);
void qcc_s16_dequantize_scalar(const qcc_wide_quantize_params *params, const int16_t *QCC_RESTRICT input,
                               float *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
