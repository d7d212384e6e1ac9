/* The NEON kernels: params structs and functions. Conventions: qcc_kernels.h.
 *
 * scale: int32[channels rounded up to a multiple of 4, or of 16 where a kernel says so][m of four, k of four]: see qcc_neon.h.
 * The head of each .c file gives the layouts of its constants. No intrinsics here: any code may include this.
 */
#ifndef QCC_NEON_KERNELS_H
#define QCC_NEON_KERNELS_H

#include "qcc_integer.h"
#include "qcc_movement.h"

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
  int32_t output_step;       /* bytes from output pixel to pixel, and of the skip operand */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_neon_conv2d_params;

void qcc_s8_conv2d_neon(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                        const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                        const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                        int8_t *output, void *workspace);
void qcc_s8_conv2d_dotprod(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                           const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                           const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                           int8_t *output, void *workspace);
void qcc_s8_conv2d_i8mm(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                        const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                        const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                        int8_t *output, void *workspace);
void qcc_s8_dense_neon(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                       const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                       int8_t *output);
void qcc_s8_dense_dotprod(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                          const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                          const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                          int8_t *output);
void qcc_s8_dense_accumulator_neon(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                   const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                   int32_t *QCC_RESTRICT output);
void qcc_s8_dense_accumulator_dotprod(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                      const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                      int32_t *QCC_RESTRICT output);
void qcc_s8_depthwise_conv2d_neon(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                                  const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                  const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                                  int8_t *output, void *workspace);
void qcc_s8_depthwise_conv2d_dotprod(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                                     const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                     const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                                     int8_t *output, void *workspace);

/* ---------------------------------------------------------------- pooling and means */

/* factors: int32[output_height][output_width], or NULL where all are 1; scale: of channels rounded up to 16. */
void qcc_s8_avg_pool2d_neon(const qcc_avg_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT factors, const int32_t *QCC_RESTRICT scale,
                            int8_t *QCC_RESTRICT output);

void qcc_s8_max_pool2d_neon(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch, count, channels;
  int32_t bias; /* minus count times the input's zero_point */
} qcc_neon_sum_params;

void qcc_s8_sum_accumulator_neon(const qcc_neon_sum_params *params, const int8_t *QCC_RESTRICT input,
                                 int32_t *QCC_RESTRICT output);

/* ---------------------------------------------------------------- elementwise */

/* scale: int32[2][count[3] when per_channel is 1, else 1]: m, then k. */
void qcc_s8_add_neon(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                     const int32_t *QCC_RESTRICT scale, int8_t *output);
void qcc_s8_add_constant_neon(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT scale,
                              int8_t *output);
void qcc_s8_mul_neon(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT scale, int8_t *output);
void qcc_s8_mul_constant_neon(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT scale, int8_t *output);

void qcc_s8_table_neon(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                       int8_t *output);

void qcc_s8_softmax_pair_neon(const qcc_softmax_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                              int8_t *output);

/* ---------------------------------------------------------------- movement */

/* Elements are int8. concat_neon and copy_neon have the arrays of concat_scalar and copy_scalar. */
void qcc_concat_neon(const qcc_concat_params *params, const void *const *inputs, const int32_t *QCC_RESTRICT block_bytes,
                     const void *QCC_RESTRICT constant, void *QCC_RESTRICT output);
void qcc_s8_copy_neon(const qcc_copy_params *params, const void *QCC_RESTRICT input, void *QCC_RESTRICT output);

typedef struct {
  int32_t before, run, after; /* elements of an innermost row: filled, read, filled */
  int32_t fill;
  int32_t shape[5]; /* of the output, in such rows */
} qcc_neon_gather_params;

/* index: int32[shape[0] + ... + shape[4]]: where the axes' entries begin in the input, negative for a filled row. */
void qcc_s8_gather_neon(const qcc_neon_gather_params *params, const int8_t *QCC_RESTRICT input,
                        const int32_t *QCC_RESTRICT index, int8_t *QCC_RESTRICT output);

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_neon_interleave_params;

void qcc_s8_interleave_neon(const qcc_neon_interleave_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
