/* s8_conv2d_twice_scalar: s8_conv2d_scalar with two roundings in its requantization, as gemmlowp and the reference
 * kernels of TensorFlow Lite have them.
 *
 * Layouts, parameters and accumulator: see s8_conv2d_scalar.c.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Requantize.int_ref with rounding "twice".
 */
#define QCC_ROUNDS_TWICE
#define qcc_s8_conv2d_scalar qcc_s8_conv2d_twice_scalar
#include "s8_conv2d_scalar.c"
