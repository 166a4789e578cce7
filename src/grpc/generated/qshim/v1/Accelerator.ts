// Original file: proto/qshim/v1/sandboxes.proto

export const Accelerator = {
  ACCELERATOR_AUTO: 'ACCELERATOR_AUTO',
  ACCELERATOR_KVM: 'ACCELERATOR_KVM',
  ACCELERATOR_TCG: 'ACCELERATOR_TCG',
} as const;

export type Accelerator =
  | 'ACCELERATOR_AUTO'
  | 0
  | 'ACCELERATOR_KVM'
  | 1
  | 'ACCELERATOR_TCG'
  | 2

export type Accelerator__Output = typeof Accelerator[keyof typeof Accelerator]
