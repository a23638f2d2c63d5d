/* A stand-in for libedgetpu: TFLite's external delegate interface, for tests.
 *
 * It claims nodes named "edgetpu-custom-op", as libedgetpu does, and computes the softmax of int8 logits; the detector's
 * two RESHAPEs it copies. Each creation and each invocation first obeys the file that STANDIN_CONTROL names, which holds
 * one word:
 *
 *   ok       right answers            refuse   no delegate is created         refuse:usb:1  only for that device
 *   hang     never return             hang-create  never return from creation
 *   abort    as libedgetpu does when a USB transfer fails                     segv
 *   error    kTfLiteError             wrong    answers turned by one class    slow  50 ms late
 *   misplace only the detector's answers are wrong: turned by six anchors      abort-third  at the third invocation
 *
 * Each creation appends "<pid> create <device>" to the file STANDIN_LOG names, each invocation "<pid> invoke <device>",
 * the detector's "<pid> detect <device>".
 *
 * The declarations follow tensorflow/lite/core/c/common.h of TensorFlow 2.19, whose wheel ships no TFLite C headers;
 * "semi-ABI stable" there: fields are only ever added at the end.
 */
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;
enum { kTfLiteInt8 = 9 };

typedef struct { int size; int data[]; } TfLiteIntArray;
typedef struct { float scale; int32_t zero_point; } TfLiteQuantizationParams;
typedef struct {
  int type;
  union { int8_t *int8; void *data; } data;
  TfLiteIntArray *dims;
  TfLiteQuantizationParams params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  struct TfLiteDelegate *delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const TfLiteIntArray *dims_signature;
} TfLiteTensor;

typedef struct {
  TfLiteIntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  struct TfLiteDelegate *delegate;
  bool might_have_side_effect;
} TfLiteNode;

typedef struct TfLiteContext TfLiteContext;
typedef struct {
  void *(*init)(TfLiteContext *, const char *buffer, size_t length);
  void (*free)(TfLiteContext *, void *buffer);
  TfLiteStatus (*prepare)(TfLiteContext *, TfLiteNode *);
  TfLiteStatus (*invoke)(TfLiteContext *, TfLiteNode *);
  const char *(*profiling_string)(const TfLiteContext *, const TfLiteNode *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *async_kernel;
  uint64_t inplace_operator;
} TfLiteRegistration;

struct TfLiteContext { /* its first fields; the rest is not touched */
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext *, TfLiteIntArray **);
  TfLiteTensor *tensors;
  void *impl_;
  TfLiteStatus (*ResizeTensor)(TfLiteContext *, TfLiteTensor *, TfLiteIntArray *);
  void (*ReportError)(TfLiteContext *, const char *, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext *, int, int *);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext *, int, TfLiteNode **, TfLiteRegistration **);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext *, TfLiteRegistration, const TfLiteIntArray *,
                                                        struct TfLiteDelegate *);
};

typedef struct TfLiteDelegate {
  void *data_;
  TfLiteStatus (*Prepare)(TfLiteContext *, struct TfLiteDelegate *);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int, TfLiteTensor *);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int, TfLiteTensor *);
  void (*FreeBufferHandle)(TfLiteContext *, struct TfLiteDelegate *, int *);
  int64_t flags;
  void *opaque_delegate_builder;
} TfLiteDelegate;

static bool told(const char *word) {
  static char line[64];
  const char *path = getenv("STANDIN_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return false;
  size_t length = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  while (length && line[length - 1] == '\n') length--;
  line[length] = 0;
  return strcmp(line, word) == 0;
}

static void note(const char *what, const char *device) {
  const char *path = getenv("STANDIN_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%d %s %s\n", (int)getpid(), what, *device ? device : "any");
  fclose(file);
}

static void obey(void) {
  static int since;
  since = told("abort-third") ? since + 1 : 0;
  if (told("abort") || since == 3) abort();
  if (told("segv")) raise(SIGSEGV);
  if (told("slow")) usleep(50 * 1000);
  while (told("hang")) usleep(20 * 1000); /* ends only when the word changes, as a replug would end it */
}

static void *kernel_init(TfLiteContext *context, const char *buffer, size_t length) {
  (void)context; (void)length;
  return ((void *const *)buffer)[0]; /* TfLiteDelegateParams.delegate */
}

/* The `number`-th activation that a node takes, of as many bytes as its `number`-th answer; NULL without one. */
static const TfLiteTensor *input(const TfLiteContext *context, const TfLiteNode *node, int number) {
  const size_t bytes = context->tensors[node->outputs->data[number]].bytes;
  for (int i = 0; i < node->inputs->size; i++) {
    const TfLiteTensor *in = &context->tensors[node->inputs->data[i]];
    if (in->type == kTfLiteInt8 && number-- == 0) return in->bytes == bytes ? in : NULL;
  }
  return NULL;
}

static TfLiteStatus kernel_prepare(TfLiteContext *context, TfLiteNode *node) {
  for (int k = 0; k < node->outputs->size; k++)
    if (!input(context, node, k) || context->tensors[node->outputs->data[k]].type != kTfLiteInt8) return kTfLiteError;
  return kTfLiteOk;
}

static void reshape(const TfLiteTensor *in, TfLiteTensor *out) {
  const size_t n = in->bytes, turn = told("misplace") ? 6 * (size_t)out->dims->data[out->dims->size - 1] : 0;
  for (size_t i = 0; i < n; i++) out->data.int8[(i + turn) % n] = in->data.int8[i];
}

static void softmax(const TfLiteTensor *in, TfLiteTensor *out) {
  const int n = (int)in->bytes, turn = told("wrong") ? 1 : 0;
  double sum = 0;
  for (int i = 0; i < n; i++) sum += exp(in->params.scale * (double)in->data.int8[i]);
  for (int i = 0; i < n; i++) {
    const double p = exp(in->params.scale * (double)in->data.int8[i]) / sum;
    const double q = round(p / out->params.scale) + out->params.zero_point;
    out->data.int8[(i + turn) % n] = (int8_t)fmin(127, fmax(-128, q));
  }
}

static TfLiteStatus kernel_invoke(TfLiteContext *context, TfLiteNode *node) {
  TfLiteDelegate *delegate = node->user_data;
  const bool detects = input(context, node, 0)->dims->size > 2;
  note(detects ? "detect" : "invoke", delegate->data_);
  obey();
  if (told("error")) {
    context->ReportError(context, "the stand-in was told to fail");
    return kTfLiteError;
  }
  for (int k = 0; k < node->outputs->size; k++)
    (detects ? reshape : softmax)(input(context, node, k), &context->tensors[node->outputs->data[k]]);
  return kTfLiteOk;
}

static TfLiteStatus delegate_prepare(TfLiteContext *context, TfLiteDelegate *delegate) {
  TfLiteIntArray *plan;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  const int count = plan->size;
  int *order = malloc(sizeof(int) * (size_t)count);
  memcpy(order, plan->data, sizeof(int) * (size_t)count);
  TfLiteIntArray *claimed = malloc(sizeof(TfLiteIntArray) + sizeof(int) * (size_t)count);
  claimed->size = 0;
  for (int i = 0; i < count; i++) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    if (context->GetNodeAndRegistration(context, order[i], &node, &registration) != kTfLiteOk) return kTfLiteError;
    if (registration->custom_name && strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      claimed->data[claimed->size++] = order[i];
  }
  const TfLiteRegistration kernel = {
      .init = kernel_init, .prepare = kernel_prepare, .invoke = kernel_invoke, .custom_name = "StandIn", .version = 1};
  const TfLiteStatus status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, claimed, delegate);
  free(claimed);
  free(order);
  return status;
}

TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  const char *device = "";
  for (size_t i = 0; i < count; i++)
    if (strcmp(keys[i], "device") == 0) device = values[i];
  note("create", device);
  while (told("hang-create")) usleep(20 * 1000);
  char only[64];
  snprintf(only, sizeof only, "refuse:%s", device);
  if (told("refuse") || told(only)) {
    if (report) report("the stand-in was told to refuse");
    return NULL;
  }
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  delegate->data_ = strdup(device);
  delegate->Prepare = delegate_prepare;
  delegate->flags = 1; /* kTfLiteDelegateFlagsAllowDynamicTensors, as libedgetpu: else all nodes are prepared first */
  return delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  if (!delegate) return;
  free(delegate->data_);
  free(delegate);
}
