/* residual_net: residual net, compiled for c
 *
 * Made by qcc VERSION from residual net.
 * Target: c.
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
/* A result is whole in residual_net_run; with a pool, the next step may be writing over it. */
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
static void step_stem(int32_t part, const int8_t *x, int8_t *output) {
  static const qcc_conv2d_params params[] = {
      /* batch, input_height, input_width, input_channels, output_height, output_width, output_channels,
         kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width, pad_top,
         pad_left, pad_value, groups, skip_zero_point, output_zero_point, low, high */
      {1, 6, 6, 3, 3, 6, 8, 3, 3, 1, 1, 1, 1, 1, 1, 47, 1, 0, -4, -128, 127}, /* rows 0 to 2 */
      {1, 4, 6, 3, 3, 6, 8, 3, 3, 1, 1, 1, 1, 0, 1, 47, 1, 0, -4, -128, 127}, /* rows 3 to 5 */
  };
  static const int32_t x_at[] = {0, 36};
  static const int32_t output_at[] = {0, 144};
  qcc_s8_conv2d_scalar(&params[part], x + x_at[part], NULL, residual_net_stem_weights,
                       residual_net_stem_bias, NULL, residual_net_stem_multiplier, residual_net_stem_shift,
                       output + output_at[part]);
}

/* depthwise = conv2d+requantize
 * stem s8[1, 6, 6, 8] -> s8[1, 6, 6, 8]
 * 2592 MACs, 168 bytes of constants
 */
static void step_depthwise(int32_t part, const int8_t *x, int8_t *output) {
  static const qcc_conv2d_params params[] = {
      /* batch, input_height, input_width, input_channels, output_height, output_width, output_channels,
         kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width, pad_top,
         pad_left, pad_value, groups, skip_zero_point, output_zero_point, low, high */
      {1, 6, 6, 8, 3, 6, 8, 3, 3, 1, 1, 1, 1, 1, 1, -4, 8, 0, 0, -128, 127}, /* rows 0 to 2 */
      {1, 4, 6, 8, 3, 6, 8, 3, 3, 1, 1, 1, 1, 0, 1, -4, 8, 0, 0, -128, 127}, /* rows 3 to 5 */
  };
  static const int32_t x_at[] = {0, 96};
  static const int32_t output_at[] = {0, 144};
  qcc_s8_depthwise_conv2d_scalar(&params[part], x + x_at[part], NULL, residual_net_depthwise_weights,
                                 residual_net_depthwise_bias, NULL, residual_net_depthwise_multiplier,
                                 residual_net_depthwise_shift, output + output_at[part]);
}

/* point = conv2d+add+requantize
 * depthwise s8[1, 6, 6, 8], stem s8[1, 6, 6, 8] -> s8[1, 6, 6, 8]
 * 2304 MACs, 192 bytes of constants
 */
static void step_point(int32_t part, const int8_t *x, const int8_t *skip, int8_t *output) {
  static const qcc_conv2d_params params[] = {
      /* batch, input_height, input_width, input_channels, output_height, output_width, output_channels,
         kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width, pad_top,
         pad_left, pad_value, groups, skip_zero_point, output_zero_point, low, high */
      {1, 1, 36, 8, 1, 18, 8, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, -4, 64, -100, 127}, /* pixels 0 to 17 */
      {1, 1, 18, 8, 1, 18, 8, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, -4, 64, -100, 127}, /* pixels 18 to 35 */
  };
  static const int32_t x_at[] = {0, 144};
  static const int32_t skip_at[] = {0, 144};
  static const int32_t output_at[] = {0, 144};
  qcc_s8_conv2d_scalar(&params[part], x + x_at[part], skip + skip_at[part], residual_net_point_weights,
                       residual_net_point_bias, residual_net_point_skip_multiplier,
                       residual_net_point_multiplier, residual_net_point_shift, output + output_at[part]);
}

/* head = dense+requantize
 * point_reshaped s8[1, 288] -> s8[1, 5]
 * 1440 MACs, 1500 bytes of constants
 */
static void step_head(int32_t part, const int8_t *x, int8_t *output) {
  static const qcc_dense_params params[] = {
      /* rows, input_channels, output_channels, skip_zero_point, output_zero_point, low, high */
      {1, 288, 2, 0, 31, -128, 127}, /* channels 0 to 1 */
      {1, 288, 3, 0, 31, -128, 127}, /* channels 2 to 4 */
  };
  static const int32_t weights_at[] = {0, 576};
  static const int32_t bias_at[] = {0, 2};
  static const int32_t multiplier_at[] = {0, 2};
  static const int32_t shift_at[] = {0, 2};
  static const int32_t output_at[] = {0, 2};
  qcc_s8_dense_scalar(&params[part], x, NULL, residual_net_head_weights + weights_at[part],
                      residual_net_head_bias + bias_at[part], NULL,
                      residual_net_head_multiplier + multiplier_at[part],
                      residual_net_head_shift + shift_at[part], output + output_at[part]);
}

/* Memory of one call. */
typedef struct {
  int8_t *memory;
  const int8_t *input;
  int8_t *output;
} run_memory;

/* One part of a stage: what threads do before they wait for each other. */
static void run_stage(void *context, int32_t stage, int32_t part) {
  const run_memory *const call = (const run_memory *)context;
  int8_t *const memory = call->memory;
  const int8_t *const in = call->input;
  int8_t *const out = call->output;
  switch (stage) {
    case 0:
      step_stem(part, in, memory + at_stem);
      break;
    case 1:
      if (part == 0) {
        QCC_AFTER_STEP(0, memory + at_stem, 288);
      }
      step_depthwise(part, memory + at_stem, memory + at_depthwise);
      break;
    case 2:
      if (part == 0) {
        QCC_AFTER_STEP(1, memory + at_depthwise, 288);
      }
      step_point(part, memory + at_depthwise, memory + at_stem, memory + at_point);
      break;
    case 3:
      if (part == 0) {
        QCC_AFTER_STEP(2, memory + at_point, 288);
      }
      step_head(part, memory + at_point, out);
      break;
    case 4:
      if (part == 0) {
        QCC_AFTER_STEP(3, out, 5);
      }
      break;
    default:
      break;
  }
}

int residual_net_run_parallel(struct qcc_pool *pool, void *arena, const int8_t *in, int8_t *out) {
  run_memory call;
  if (arena == NULL || in == NULL || out == NULL) {
    return 1;
  }
  if ((uintptr_t)arena % RESIDUAL_NET_ARENA_ALIGN != 0) {
    return 2;
  }
  call.memory = (int8_t *)arena;
  call.input = (const int8_t *)in;
  call.output = (int8_t *)out;
  qcc_pool_run(pool, run_stage, &call, 4, 2, 1);
  run_stage(&call, 4, 0);
  return 0;
}

int residual_net_run(void *arena, const int8_t *in, int8_t *out) {
  return residual_net_run_parallel(NULL, arena, in, out);
}

#ifdef RESIDUAL_NET_STATIC_ARENA
/* An attribute, such as one that names a section. */
#ifndef RESIDUAL_NET_ARENA_SECTION
#define RESIDUAL_NET_ARENA_SECTION
#endif
QCC_ALIGNED(RESIDUAL_NET_ARENA_ALIGN) RESIDUAL_NET_ARENA_SECTION static int8_t static_arena[RESIDUAL_NET_ARENA_BYTES];

int residual_net_invoke(const int8_t *in, int8_t *out) { return residual_net_run(static_arena, in, out); }
#endif
