/* The x86 kernels. The order of arguments is that of qcc_kernels.h; the head of each .c file gives the layouts of its
 * constants. No intrinsics here: any code may include this.
 */
#ifndef QCC_X86_KERNELS_H
#define QCC_X86_KERNELS_H

#include "qcc_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t input_step;        /* bytes from input pixel to pixel, input_channels * groups or more */
  int32_t output_step;       /* bytes from output pixel to pixel, and of the skip operand */
  int32_t groups;            /* channels are those of one group */
  int32_t vectors;           /* 1 to 4: a block has 16 times as many output channels */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_avx512_conv_params;

/* skip_multiplier: int16[channels][2], the two add up. */
void qcc_s8_conv2d_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                              const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                              const int16_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output, void *workspace);

/* As above; skip_multiplier: int16[channels][2], one of them 0. */
void qcc_s8_conv2d_stem_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input,
                                   const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                   const float *QCC_RESTRICT scale, int8_t *QCC_RESTRICT output, void *workspace);
void qcc_s8_conv2d_few_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input,
                                  const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT bias, const int16_t *QCC_RESTRICT skip_multiplier,
                                  const float *QCC_RESTRICT scale, int8_t *output, void *workspace);

void qcc_s8_conv2d_exact_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                    int8_t *output, void *workspace);

#ifdef __cplusplus
}
#endif

#endif
