// input "im age\n": s8<1x4x5x2> q(0.007843137718737125, -1)
// output "result": s8<1x2x3x2> q(0.456440806388855, -128)
module {
  func.func @main(%im_age_: tensor<1x4x5x2xi8>) -> (tensor<1x2x3x2xi8>) {
    %_1_conv_acc_weight = "tosa.const"() <{values = dense<"0x81888F969DA4ABB2B9C1C8CFD6DDE4EBF2F900070F161E252D343C434B525A616970787F"> : tensor<2x3x3x2xi8>}> : () -> tensor<2x3x3x2xi8>
    %_1_conv_acc_bias = "tosa.const"() <{values = dense<[0, 0]> : tensor<2xi32>}> : () -> tensor<2xi32>
    %i8_zero_point = "tosa.const"() <{values = dense<[-1]> : tensor<1xi8>}> : () -> tensor<1xi8>
    %i8_zero_point_2 = "tosa.const"() <{values = dense<[0]> : tensor<1xi8>}> : () -> tensor<1xi8>
    %_1_conv_acc = "tosa.conv2d"(%im_age_, %_1_conv_acc_weight, %_1_conv_acc_bias, %i8_zero_point, %i8_zero_point_2) <{pad = array<i64: 1, 0, 1, 1>, stride = array<i64: 2, 2>, dilation = array<i64: 1, 1>, acc_type = i32}> : (tensor<1x4x5x2xi8>, tensor<2x3x3x2xi8>, tensor<2xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x2x3x2xi32>
    %_1_relu_multiplier = "tosa.const"() <{values = dense<[1338887552, 1264504576]> : tensor<2xi32>}> : () -> tensor<2xi32>
    %_1_relu_shift = "tosa.const"() <{values = dense<[39, 39]> : tensor<2xi8>}> : () -> tensor<2xi8>
    %i32_zero_point = "tosa.const"() <{values = dense<[0]> : tensor<1xi32>}> : () -> tensor<1xi32>
    %i8_zero_point_3 = "tosa.const"() <{values = dense<[-128]> : tensor<1xi8>}> : () -> tensor<1xi8>
    %_1_relu = "tosa.rescale"(%_1_conv_acc, %_1_relu_multiplier, %_1_relu_shift, %i32_zero_point, %i8_zero_point_3) <{scale32 = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, per_channel = true, input_unsigned = false, output_unsigned = false}> : (tensor<1x2x3x2xi32>, tensor<2xi32>, tensor<2xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x2x3x2xi8>
    return %_1_relu : tensor<1x2x3x2xi8>
  }
}
