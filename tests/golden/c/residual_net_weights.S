/* Constants of residual_net: 2172 bytes, in residual_net_weights.bin beside this file.
 *
 * Made by qcc VERSION from residual net.
 * Target: c.
 * SHA-256 of residual_net_weights.bin: b2a57faab9cfba240636a1e4455d43c62184b920303275b69c491e7f84767d3f.
 *
 * For gcc, clang and zig, whose assemblers look for the file in the folders given with -I. Where they are not to be
 * had, compile the model with --weights c.
 * To put the constants into a section of their own (ELF):
 * -D'RESIDUAL_NET_WEIGHTS_SECTION=__attribute__((section(".name")))'.
 */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "residual_net_weights.bin is little-endian"
#endif

#if defined(__ELF__)
#ifdef RESIDUAL_NET_WEIGHTS_SECTION
/* __attribute__((section(".name"))) becomes ".name" */
#define __attribute__(attribute) UNWRAPPED attribute
#define UNWRAPPED(section) section
#define section(name) name
  .section RESIDUAL_NET_WEIGHTS_SECTION, "a", %progbits
#else
  .section .rodata, "a", %progbits
#endif
#elif defined(__APPLE__)
  .section __TEXT, __const
#else
  .section .rdata, "dr"
#endif

/* How the assembler spells C's name of an object. */
#if defined(__APPLE__) || (defined(_WIN32) && defined(__i386__))
#define SYMBOL _\symbol
#else
#define SYMBOL \symbol
#endif

/* A part of the file as an array that only this library sees. */
.macro c_array symbol, offset, bytes
  .globl SYMBOL
#if defined(__ELF__)
  .hidden SYMBOL
  .type SYMBOL, %object
  .size SYMBOL, \bytes
#elif defined(__APPLE__)
  .private_extern SYMBOL
#endif
  .set SYMBOL, 1b + \offset
.endm

  .balign 16
1:
  .incbin "residual_net_weights.bin"

/* stem, weights: int8[8, 3, 3, 3] */
c_array residual_net_stem_weights, 0, 216
/* stem, bias: int32[8] */
c_array residual_net_stem_bias, 224, 32
/* stem, multiplier: int32[8] */
c_array residual_net_stem_multiplier, 256, 32
/* stem, shift: int32[8] */
c_array residual_net_stem_shift, 288, 32
/* depthwise, weights: int8[3, 3, 8] */
c_array residual_net_depthwise_weights, 320, 72
/* depthwise, bias: int32[8] */
c_array residual_net_depthwise_bias, 400, 32
/* depthwise, multiplier: int32[8] */
c_array residual_net_depthwise_multiplier, 432, 32
/* depthwise, shift: int32[8] */
c_array residual_net_depthwise_shift, 464, 32
/* point, weights: int8[8, 1, 1, 8] */
c_array residual_net_point_weights, 496, 64
/* point, bias: int32[8] */
c_array residual_net_point_bias, 560, 32
/* point, skip_multiplier: int32[8] */
c_array residual_net_point_skip_multiplier, 592, 32
/* point, multiplier: int32[8] */
c_array residual_net_point_multiplier, 624, 32
/* point, shift: int32[8] */
c_array residual_net_point_shift, 656, 32
/* head, weights: int8[5, 288] */
c_array residual_net_head_weights, 688, 1440
/* head, bias: int32[5] */
c_array residual_net_head_bias, 2128, 20
/* head, multiplier: int32[5] */
c_array residual_net_head_multiplier, 2160, 20
/* head, shift: int32[5] */
c_array residual_net_head_shift, 2192, 20

#if defined(__ELF__)
  .section .note.GNU-stack, "", %progbits /* the stack need not be executable */
#endif
