/* The NEON kernels of tensors with 16 bits: params structs and functions. See qcc_neon_wide.h. No intrinsics here.
 *
 * input_bytes, skip_bytes, a_bytes, b_bytes and output_bytes are 1 for int8 and 2 for int16.
 */
#ifndef QCC_NEON_WIDE_KERNELS_H
#define QCC_NEON_WIDE_KERNELS_H

#include "qcc_integer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As qcc_wide_conv2d_params. */
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
} qcc_neon_wide_conv2d_params;

void qcc_s16_conv2d_neon(const qcc_neon_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale, void *output,
                         void *workspace);
void qcc_s16_conv2d_dotprod(const qcc_neon_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                            const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                            const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                            void *output, void *workspace);
void qcc_s16_conv2d_direct_neon(const qcc_neon_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                                const int16_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                                void *output, void *workspace);

typedef struct {
  int32_t count;
  int32_t a_bytes, b_bytes, output_bytes;
  int32_t a_multiplier, b_multiplier;
  int32_t bias; /* of the zero_points */
  int32_t multiplier, up;
  int32_t down; /* negative, see above */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_neon_wide_add_params;

void qcc_s16_add_neon(const qcc_neon_wide_add_params *params, const void *a, const void *b, void *output);

typedef struct {
  int32_t batch, count, channels;
  int32_t bias; /* minus count times the input's zero_point */
  int32_t input_bytes, output_bytes;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_neon_wide_sum_params;

void qcc_s16_sum_neon(const qcc_neon_wide_sum_params *params, const void *QCC_RESTRICT input,
                      const int32_t *QCC_RESTRICT scale, void *QCC_RESTRICT output);

typedef struct {
  int32_t batch, channels, pixels; /* 2 to 4 channels */
} qcc_neon_wide_interleave_params;

void qcc_s16_interleave_neon(const qcc_neon_wide_interleave_params *params, const int16_t *QCC_RESTRICT input,
                             int16_t *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
