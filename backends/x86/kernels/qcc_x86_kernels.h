/* The x86 kernels. Their params structs are those of qcc_kernels.h, and so is the order of arguments; the head of each
 * .c file gives the layouts of its constants. No intrinsics here: any code may include this.
 */
#ifndef QCC_X86_KERNELS_H
#define QCC_X86_KERNELS_H

#include "qcc_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

void qcc_s8_conv2d_avx512vnni(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                              const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                              const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output, void *workspace);

#ifdef __cplusplus
}
#endif

#endif
