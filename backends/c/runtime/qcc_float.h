/* Float32 kernels: the float library, and the parts of an integer model that have no integer form.
 *
 * A result is clamped to [low, high] where the params say so; NaN passes. Without a bound, low or high is the
 * largest finite float, so an infinity becomes finite. Sums are in float32, in the order stated by each kernel.
 * Constants that a call does not need are NULL.
 */
#ifndef QCC_FLOAT_H
#define QCC_FLOAT_H

#include "qcc_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline float qcc_clamp_f32(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

/* ---------------------------------------------------------------- elementwise */

/* The names and the order are those of FUNCTIONS in qcc/backends/scalar/float_elementwise.py. */
typedef enum {
  QCC_CLAMP, /* to [alpha, beta] */
  QCC_SIGMOID,
  QCC_HARD_SIGMOID, /* alpha x + beta in [0, 1] */
  QCC_HARD_SWISH,
  QCC_SWISH, /* x sigmoid(alpha x) */
  QCC_MISH,
  QCC_SOFTPLUS,
  QCC_SOFTSIGN,
  QCC_TANH,
  QCC_LEAKY_RELU, /* alpha x below 0 */
  QCC_THRESHOLDED_RELU,
  QCC_ELU,
  QCC_SELU, /* beta elu(x) */
  QCC_CELU,
  QCC_GELU,
  QCC_GELU_TANH,
  QCC_ERF,
  QCC_EXP,
  QCC_LOG,
  QCC_SQRT,
  QCC_RECIPROCAL,
  QCC_NEG,
  QCC_ABS,
  QCC_SIGN,
  QCC_FLOOR,
  QCC_CEIL,
  QCC_ROUND, /* ties to even */
  QCC_SIN,
  QCC_COS,
  QCC_ASIN,
  QCC_ACOS,
  QCC_ATAN,
  QCC_ASINH,
  QCC_ATANH,
  QCC_SHRINK /* nearer to 0 by beta, 0 in [-alpha, alpha] */
} qcc_f32_function;

typedef struct {
  int32_t function; /* a qcc_f32_function */
  int32_t count;
  float alpha, beta;
} qcc_f32_unary_params;

/* The output may be written over the input. */
void qcc_f32_unary_scalar(const qcc_f32_unary_params *params, const float *input, float *output);

typedef struct {
  int32_t count;
  float scale;
  float low, high; /* codes, minus the zero_point */
} qcc_f32_fake_quant_params;

/* The output may be written over the input. */
void qcc_f32_fake_quant_scalar(const qcc_f32_fake_quant_params *params, const float *input, float *output);

/* The names and the order are those of OPERATIONS in qcc/backends/scalar/float_elementwise.py. */
typedef enum {
  QCC_ADD,
  QCC_SUB,
  QCC_MUL,
  QCC_DIV,
  QCC_MIN,
  QCC_MAX,
  QCC_POW,
  QCC_PRELU, /* b a where a < 0 */
  QCC_LESS,  /* 1 or 0 */
  QCC_LESS_OR_EQUAL,
  QCC_EQUAL,
  QCC_KEEP /* a where b is not 0, else 0 */
} qcc_f32_operation;

typedef struct {
  int32_t operation;    /* a qcc_f32_operation */
  int32_t shape[6];     /* of the output; unused leading axes have size 1 */
  int32_t a_strides[6]; /* in elements, 0 along broadcast axes */
  int32_t b_strides[6];
  float low, high;
} qcc_f32_binary_params;

/* The operand that is NULL is the constant. The output may be written over an operand that is not broadcast. */
void qcc_f32_binary_scalar(const qcc_f32_binary_params *params, const float *a, const float *b,
                           const float *QCC_RESTRICT constant, float *output);

/* ---------------------------------------------------------------- convolution, dense, matrix product */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size; padding is 0 */
  int32_t groups;
  float low, high;
} qcc_f32_conv2d_params;

/* weights: for each group, for each block of up to QCC_F32_BLOCK of its output channels:
 * float[kernel_height][kernel_width][input_channels / groups][channels of the block]. */
#define QCC_F32_BLOCK 16
void qcc_f32_conv2d_scalar(const qcc_f32_conv2d_params *params, const float *QCC_RESTRICT input,
                           const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                           float *QCC_RESTRICT output);

/* groups = input_channels = output_channels; weights: float[kernel_height][kernel_width][channels]. */
void qcc_f32_depthwise_conv2d_scalar(const qcc_f32_conv2d_params *params, const float *QCC_RESTRICT input,
                                     const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                                     float *QCC_RESTRICT output);

/* pad_top, pad_left: rows and columns cut off before the output. */
typedef qcc_f32_conv2d_params qcc_f32_conv_transpose2d_params;

/* weights: packed as for qcc_f32_conv2d_scalar. */
void qcc_f32_conv_transpose2d_scalar(const qcc_f32_conv_transpose2d_params *params, const float *QCC_RESTRICT input,
                                     const float *QCC_RESTRICT weights, const float *QCC_RESTRICT bias,
                                     float *QCC_RESTRICT output);

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size; padding is 0 */
  int32_t groups;
  int32_t group; /* weights of a filter that share a scale */
  float low, high;
} qcc_f32_stored_conv2d_params;

/* Weights in codes, see qcc_stored_conv2d.h. */
void qcc_f32_int8_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const int8_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output);
void qcc_f32_int4_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint8_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output);
void qcc_f32_fp16_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint16_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output);

typedef struct {
  int32_t rows, depth, outputs;
} qcc_f32_dynamic_dense_params;

/* workspace: uint8[rows][depth]. */
void qcc_f32_dynamic_dense_scalar(const qcc_f32_dynamic_dense_params *params, const float *QCC_RESTRICT input,
                                  const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT weight_sums,
                                  const float *QCC_RESTRICT scale, const float *QCC_RESTRICT bias,
                                  float *QCC_RESTRICT output, void *workspace);

typedef struct {
  int32_t batch[4];                   /* leading axes of the output */
  int32_t a_strides[4], b_strides[4]; /* in elements, 0 along broadcast axes */
  int32_t rows, columns, depth;
} qcc_f32_matmul_params;

/* The operand that is NULL is the constant. */
void qcc_f32_matmul_scalar(const qcc_f32_matmul_params *params, const float *QCC_RESTRICT a,
                           const float *QCC_RESTRICT b, const float *QCC_RESTRICT constant,
                           float *QCC_RESTRICT output);

/* ---------------------------------------------------------------- pooling */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left;
} qcc_f32_pool2d_params;

void qcc_f32_max_pool2d_scalar(const qcc_f32_pool2d_params *params, const float *QCC_RESTRICT input,
                               float *QCC_RESTRICT output);

/* weight: float[output_height][output_width], 1 / count of each window. */
void qcc_f32_avg_pool2d_scalar(const qcc_f32_pool2d_params *params, const float *QCC_RESTRICT input,
                               const float *QCC_RESTRICT weight, float *QCC_RESTRICT output);

/* ---------------------------------------------------------------- resizing */

typedef struct {
  int32_t batch;
  int32_t input_height, input_width, channels;
  int32_t output_height, output_width;
} qcc_f32_resize_linear_params;

/* rows: int32[output_height][2], row_weights: float[output_height], weight of the second row; columns likewise. */
void qcc_f32_resize_linear_scalar(const qcc_f32_resize_linear_params *params, const float *QCC_RESTRICT input,
                                  const int32_t *QCC_RESTRICT rows, const float *QCC_RESTRICT row_weights,
                                  const int32_t *QCC_RESTRICT columns, const float *QCC_RESTRICT column_weights,
                                  float *QCC_RESTRICT output);

/* ---------------------------------------------------------------- reductions */

/* The names and the order are those of REDUCTIONS in qcc/backends/scalar/reduction.py. */
typedef enum { QCC_REDUCE_SUM, QCC_REDUCE_MAX, QCC_REDUCE_MIN, QCC_REDUCE_PROD } qcc_f32_reduction;

/* Axes that stay and axes that are reduced, each with the strides of the input in elements. Unused leading axes
 * have size 1. */
typedef struct {
  int32_t reduction; /* a qcc_f32_reduction */
  int32_t kept[3], kept_strides[3];
  int32_t reduced[3], reduced_strides[3];
  float factor; /* the result is multiplied by it: 1 / count for a mean */
} qcc_f32_reduce_params;

void qcc_f32_reduce_scalar(const qcc_f32_reduce_params *params, const float *QCC_RESTRICT input,
                           float *QCC_RESTRICT output);

typedef struct {
  int32_t outer, count, inner;
  int32_t last; /* 1: of equal elements the last, 0: the first */
} qcc_f32_arg_max_params;

/* input: float[outer][count][inner]; output: float[outer][inner], the index of the largest element. */
void qcc_f32_arg_max_scalar(const qcc_f32_arg_max_params *params, const float *QCC_RESTRICT input,
                            float *QCC_RESTRICT output);

/* ---------------------------------------------------------------- normalization: float[outer][count][inner] */

typedef struct {
  int32_t outer, count, inner;
  int32_t logarithm; /* 1: log_softmax */
} qcc_f32_softmax_params;

/* The output may be written over the input. */
void qcc_f32_softmax_scalar(const qcc_f32_softmax_params *params, const float *input, float *output);

typedef struct {
  int32_t outer, count, inner;
  int32_t parameter_strides[3]; /* of scale and bias along outer, count, inner */
  float epsilon;
} qcc_f32_normalize_params;

/* bias may be NULL. The output may be written over the input. */
void qcc_f32_normalize_scalar(const qcc_f32_normalize_params *params, const float *input,
                              const float *QCC_RESTRICT scale, const float *QCC_RESTRICT bias, float *output);

typedef struct {
  int32_t rows, channels;
} qcc_f32_affine_params;

/* multiplier, offset: float[channels]. The output may be written over the input. */
void qcc_f32_affine_scalar(const qcc_f32_affine_params *params, const float *input,
                           const float *QCC_RESTRICT multiplier, const float *QCC_RESTRICT offset, float *output);

typedef struct {
  int32_t rows, channels;
  int32_t size; /* neighbouring channels: (size - 1) / 2 before, the rest after */
  float alpha, beta, bias;
} qcc_f32_lrn_params;

void qcc_f32_lrn_scalar(const qcc_f32_lrn_params *params, const float *QCC_RESTRICT input,
                        float *QCC_RESTRICT output);

#ifdef __cplusplus
}
#endif

#endif
