import { z } from 'zod';
import { ShimError } from '../../base/errors.ts';

/**
 * The members of an OCI runtime configuration (config.json) that qshim reads or changes; all others are passed on as
 * they are where they stand inside `process`, `linux.resources` and the like. opencontainers/runtime-spec 1.0 and 1.1.
 *
 * Whoever gets one from outside parses it, once; from there on the parsed value is handed on, and nothing below looks
 * again at whether it is one.
 */
const mountSchema = z.looseObject({
  destination: z.string().startsWith('/').max(4096),
  type: z.string().default(''),
  source: z.string().max(4096).default(''),
  options: z.array(z.string()).nullish(),
});

const deviceSchema = z.looseObject({
  path: z.string().startsWith('/').max(4096),
  type: z.string(),
  major: z.int().default(0),
  minor: z.int().default(0),
});

const deviceRuleSchema = z.looseObject({
  allow: z.boolean().optional(),
  /** Letters of `rwm`; absent for all three. */
  access: z.string().optional(),
  type: z.string().optional(),
  major: z.int().nullish(),
  minor: z.int().nullish(),
});

const resourcesSchema = z.looseObject({
  devices: z.array(deviceRuleSchema).nullish(),
  cpu: z.looseObject({}).nullish(),
});

const linuxSchema = z.looseObject({
  namespaces: z.array(z.looseObject({ type: z.string(), path: z.string().optional() })).nullish(),
  devices: z.array(deviceSchema).nullish(),
  resources: resourcesSchema.nullish(),
  sysctl: z.record(z.string(), z.string()).nullish(),
});

const processSchema = z.looseObject({
  terminal: z.boolean().optional(),
  args: z.array(z.string()).min(1),
  /** -1000 to 1000 (proc(5), oom_score_adj). */
  oomScoreAdj: z.int().min(-1000).max(1000).nullish(),
  cwd: z.string(),
});

const configSchema = z.looseObject({
  ociVersion: z.string(),
  root: z.looseObject({ readonly: z.boolean().optional() }),
  process: processSchema,
  hostname: z.string().optional(),
  domainname: z.string().optional(),
  mounts: z.array(mountSchema).nullish(),
  hooks: z.record(z.string(), z.array(z.unknown()).nullish()).nullish(),
  linux: linuxSchema.nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});

export type OciConfig = z.infer<typeof configSchema>;
export type OciMount = z.infer<typeof mountSchema>;
export type OciDevice = z.infer<typeof deviceSchema>;
export type OciLinux = z.infer<typeof linuxSchema>;
export type OciResources = z.infer<typeof resourcesSchema>;
export type OciDeviceRule = z.infer<typeof deviceRuleSchema>;
export type OciProcess = z.infer<typeof processSchema>;

/** @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG_JSON, naming the member */
export function parseConfig(config: unknown): OciConfig {
  return parse(configSchema, config, 'config.json');
}

/** @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG_JSON, naming the member */
export function parseProcess(process: unknown): OciProcess {
  return parse(processSchema, process, 'process');
}

/** @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG_JSON, naming the member */
export function parseResources(resources: unknown): OciResources {
  return parse(resourcesSchema, resources, 'resources');
}

function parse<T>(schema: z.ZodType<T>, value: unknown, name: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = [name, ...(issue?.path ?? [])].join('.');
  throw new ShimError('INVALID_ARGUMENT', `${field}: ${issue?.message ?? 'is not understood'}`, {
    reason: 'INVALID_CONFIG_JSON',
    metadata: { field },
  });
}
