/* The NEON kernels: params structs and functions. Conventions: qcc_kernels.h.
 *
 * scale: int32[channels rounded up to a multiple of 4, or of 16 where a kernel says so][m of four, k of four]: see qcc_neon.h.
 * The head of each .c file gives the layouts of its constants. No intrinsics here: any code may include this.
 */
#ifndef QCC_NEON_KERNELS_H
#define QCC_NEON_KERNELS_H

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

/* ---------------------------------------------------------------- movement */

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_neon_interleave_params;

void qcc_s8_interleave_neon(const qcc_neon_interleave_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
