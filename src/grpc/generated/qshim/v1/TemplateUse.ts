// Original file: proto/qshim/v1/sandboxes.proto

export const TemplateUse = {
  TEMPLATE_UNSPECIFIED: 'TEMPLATE_UNSPECIFIED',
  TEMPLATE_AUTO: 'TEMPLATE_AUTO',
  TEMPLATE_OFF: 'TEMPLATE_OFF',
  TEMPLATE_REQUIRED: 'TEMPLATE_REQUIRED',
} as const;

export type TemplateUse =
  | 'TEMPLATE_UNSPECIFIED'
  | 0
  | 'TEMPLATE_AUTO'
  | 1
  | 'TEMPLATE_OFF'
  | 2
  | 'TEMPLATE_REQUIRED'
  | 3

export type TemplateUse__Output = typeof TemplateUse[keyof typeof TemplateUse]
