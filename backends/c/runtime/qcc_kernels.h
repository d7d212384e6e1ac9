/* The kernels of qcc: one params struct and one function per kernel family.
 *
 * Conventions
 *   - Argument order: params struct, inputs, constants (weights, bias, multipliers, tables), output, workspace.
 *   - Activations are int8 with real = scale * (q - zero_point), channels last, densely packed.
 *   - Everything that depends on the model alone arrives in the params struct or as a constant array.
 *   - No allocation, no written globals, no library calls; only <stdint.h> and <stddef.h>.
 *   - Overflow cannot happen: the compiler proved a bound for every accumulator from the actual weights.
 *   - Each function equals its reference in qcc/ir bit for bit; the comment in its .c file names it.
 *   - Pointers to what is only read are QCC_RESTRICT, unless the output may be written over them in place.
 *
 * Compiles as C99 and as C++17.
 */
#ifndef QCC_KERNELS_H
#define QCC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QCC_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define QCC_RESTRICT __restrict
#elif !defined(__cplusplus)
#define QCC_RESTRICT restrict
#else
#define QCC_RESTRICT
#endif

/* In front of a declaration. */
#if defined(__GNUC__)
#define QCC_ALIGNED(bytes) __attribute__((aligned(bytes)))
#elif defined(__cplusplus)
#define QCC_ALIGNED(bytes) alignas(bytes)
#elif defined(_MSC_VER)
#define QCC_ALIGNED(bytes) __declspec(align(bytes))
#else
#define QCC_ALIGNED(bytes) _Alignas(bytes)
#endif

/* Bounds of a float clamp that does not clamp. */
#if defined(__GNUC__)
#define QCC_INFINITY __builtin_inff()
#define QCC_NAN __builtin_nanf("")
#else
#define QCC_INFINITY ((float)(1e300 * 1e300))
#define QCC_NAN (QCC_INFINITY - QCC_INFINITY)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- convolution and dense */

/* multiplier, shift: int32[output_channels], see qcc_requantize.h. Constants not used are NULL. */
typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t groups;
  int32_t skip_zero_point; /* of the residual operand */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_conv2d_params;

void qcc_s8_conv2d_scalar(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                          const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                          const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                          const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                          int8_t *output);

/* As above with one input channel for each output channel; weights are packed [kernel_height][kernel_width][channels]. */
void qcc_s8_depthwise_conv2d_scalar(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                    const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                    const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                    const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                    int8_t *output);

/* Both with two roundings in their requantization: see QCC_ROUNDS_TWICE in qcc_requantize.h. */
void qcc_s8_conv2d_twice_scalar(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                int8_t *output);
void qcc_s8_depthwise_conv2d_twice_scalar(const qcc_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                          const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                          const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                          const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                          int8_t *output);

typedef struct {
  int32_t rows;
  int32_t input_channels, output_channels;
  int32_t skip_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_dense_params;

void qcc_s8_dense_scalar(const qcc_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, int8_t *output);

/* ---------------------------------------------------------------- elementwise */

/* Broadcasting over at most four merged axes; a stride of 0 repeats the operand along that axis. */
typedef struct {
  int32_t count[4];
  int32_t a_stride[4], b_stride[4]; /* in elements */
  int32_t a_zero_point, b_zero_point;
  int32_t per_channel; /* 1: multipliers and shifts have count[3] values, 0: one value */
  int32_t output_zero_point;
  int32_t low, high;
} qcc_binary_params;

void qcc_s8_add_scalar(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                       const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift, int8_t *output);

void qcc_s8_add_constant_scalar(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                                const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT multiplier,
                                const int32_t *QCC_RESTRICT shift, int8_t *output);

void qcc_s8_mul_scalar(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                       const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift, int8_t *output);

void qcc_s8_mul_constant_scalar(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                                const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                                int8_t *output);

typedef struct {
  int32_t rows, channels; /* channels is 1 and rows the number of elements when there is one multiplier */
  int32_t input_zero_point;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_requantize_params;

void qcc_s8_requantize_scalar(const qcc_requantize_params *params, const int8_t *input,
                              const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                              int8_t *output);

#ifdef __cplusplus
}
#endif

#endif
