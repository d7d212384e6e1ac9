/* residual_net: residual net, compiled for c
 *
 * Made by qcc VERSION from model.onnx, sha256 0123abcd.
 * Target: c, io=int8.
 *
 * 4 steps, 14112 multiply-accumulates, 2172 bytes of constants.
 * Arena: 576 bytes; no plan needs less than 576 for this order of steps.
 */
#include "residual_net.h"

#include "residual_net_weights.h"
#include "qcc_kernels.h"

#include <stddef.h>
#include <stdint.h>

/* Define it to look at, or time, every step: its number, its result, and the bytes of the result. */
#ifndef QCC_AFTER_STEP
#define QCC_AFTER_STEP(index, data, bytes) ((void)0)
#endif

/* Offsets in the arena. Tensors that live at different times share memory. */
enum {
  at_stem = 0,        /* stem: s8[1, 6, 6, 8] */
  at_depthwise = 288, /* depthwise: s8[1, 6, 6, 8] */
  at_point = 0,       /* point: s8[1, 6, 6, 8] */
};

/* stem = conv2d+requantize
 * image s8[1, 6, 6, 3] -> s8[1, 6, 6, 8]
 * 7776 MACs, 312 bytes of constants
 */
static void step_stem(const int8_t *x, int8_t *output) {
  static const qcc_conv2d_params params = {
      1,    /* batch */
      6,    /* input_height */
      6,    /* input_width */
      3,    /* input_channels */
      6,    /* output_height */
      6,    /* output_width */
      8,    /* output_channels */
      3,    /* kernel_height */
      3,    /* kernel_width */
      1,    /* stride_height */
      1,    /* stride_width */
      1,    /* dilation_height */
      1,    /* dilation_width */
      1,    /* pad_top */
      1,    /* pad_left */
      47,   /* pad_value */
      1,    /* groups */
      0,    /* skip_zero_point */
      -4,   /* output_zero_point */
      -128, /* low */
      127,  /* high */
  };
  qcc_s8_conv2d_scalar(&params, x, NULL, residual_net_stem_weights, residual_net_stem_bias, NULL,
                       residual_net_stem_multiplier, residual_net_stem_shift, output);
  QCC_AFTER_STEP(0, output, 288);
}

/* depthwise = conv2d+requantize
 * stem s8[1, 6, 6, 8] -> s8[1, 6, 6, 8]
 * 2592 MACs, 168 bytes of constants
 */
static void step_depthwise(const int8_t *x, int8_t *output) {
  static const qcc_conv2d_params params = {
      1,    /* batch */
      6,    /* input_height */
      6,    /* input_width */
      8,    /* input_channels */
      6,    /* output_height */
      6,    /* output_width */
      8,    /* output_channels */
      3,    /* kernel_height */
      3,    /* kernel_width */
      1,    /* stride_height */
      1,    /* stride_width */
      1,    /* dilation_height */
      1,    /* dilation_width */
      1,    /* pad_top */
      1,    /* pad_left */
      -4,   /* pad_value */
      8,    /* groups */
      0,    /* skip_zero_point */
      0,    /* output_zero_point */
      -128, /* low */
      127,  /* high */
  };
  qcc_s8_depthwise_conv2d_scalar(&params, x, NULL, residual_net_depthwise_weights,
                                 residual_net_depthwise_bias, NULL, residual_net_depthwise_multiplier,
                                 residual_net_depthwise_shift, output);
  QCC_AFTER_STEP(1, output, 288);
}

/* point = conv2d+add+requantize
 * depthwise s8[1, 6, 6, 8], stem s8[1, 6, 6, 8] -> s8[1, 6, 6, 8]
 * 2304 MACs, 192 bytes of constants
 */
static void step_point(const int8_t *x, const int8_t *skip, int8_t *output) {
  static const qcc_conv2d_params params = {
      1,    /* batch */
      6,    /* input_height */
      6,    /* input_width */
      8,    /* input_channels */
      6,    /* output_height */
      6,    /* output_width */
      8,    /* output_channels */
      1,    /* kernel_height */
      1,    /* kernel_width */
      1,    /* stride_height */
      1,    /* stride_width */
      1,    /* dilation_height */
      1,    /* dilation_width */
      0,    /* pad_top */
      0,    /* pad_left */
      0,    /* pad_value */
      1,    /* groups */
      -4,   /* skip_zero_point */
      64,   /* output_zero_point */
      -100, /* low */
      127,  /* high */
  };
  qcc_s8_conv2d_scalar(&params, x, skip, residual_net_point_weights, residual_net_point_bias,
                       residual_net_point_skip_multiplier, residual_net_point_multiplier,
                       residual_net_point_shift, output);
  QCC_AFTER_STEP(2, output, 288);
}

/* head = dense+requantize
 * point_reshaped s8[1, 288] -> s8[1, 5]
 * 1440 MACs, 1500 bytes of constants
 */
static void step_head(const int8_t *x, int8_t *output) {
  static const qcc_dense_params params = {
      1,    /* rows */
      288,  /* input_channels */
      5,    /* output_channels */
      0,    /* skip_zero_point */
      31,   /* output_zero_point */
      -128, /* low */
      127,  /* high */
  };
  qcc_s8_dense_scalar(&params, x, NULL, residual_net_head_weights, residual_net_head_bias, NULL,
                      residual_net_head_multiplier, residual_net_head_shift, output);
  QCC_AFTER_STEP(3, output, 5);
}

int residual_net_run(void *arena, const int8_t *in, int8_t *out) {
  int8_t *const memory = (int8_t *)arena;
  if (arena == NULL || in == NULL || out == NULL) {
    return 1;
  }
  if ((uintptr_t)arena % RESIDUAL_NET_ARENA_ALIGN != 0) {
    return 2;
  }

  step_stem(in, memory + at_stem);
  step_depthwise(memory + at_stem, memory + at_depthwise);
  step_point(memory + at_depthwise, memory + at_stem, memory + at_point);
  step_head(memory + at_point, out);
  return 0;
}

#ifdef RESIDUAL_NET_STATIC_ARENA
/* An attribute, such as one that names a section. */
#ifndef RESIDUAL_NET_ARENA_SECTION
#define RESIDUAL_NET_ARENA_SECTION
#endif
QCC_ALIGNED(RESIDUAL_NET_ARENA_ALIGN) RESIDUAL_NET_ARENA_SECTION static int8_t static_arena[RESIDUAL_NET_ARENA_BYTES];

int residual_net_invoke(const int8_t *in, int8_t *out) { return residual_net_run(static_arena, in, out); }
#endif
