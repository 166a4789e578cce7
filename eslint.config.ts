import { join } from 'node:path';
import importX from 'eslint-plugin-import-x';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

const root = import.meta.dirname;

/** Which folder of src/ may import which: the table in ARCHITECTURE.md. Nothing imports a folder above its own. */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  files: ['base'],
  keys: ['files', 'base'],
  qmp: ['base'],
  qemu: ['qmp', 'base'],
  guest: ['base'],
  'volume/model': ['qmp/protocol.ts', 'keys/reference.ts', 'base'],
  // config.ts, here and below: for the type of the options only; reading them is main.ts's.
  confine: ['qemu', 'base', 'config.ts'],
  store: ['confine/facts.ts', 'volume/model', 'volume/record.ts', 'sandbox/spec.ts', 'guest/containers', 'base'],
  volume: ['store/event.ts', 'files', 'qmp', 'qemu', 'guest', 'keys', 'base', 'config.ts'],
  template: ['sandbox/spec.ts', 'confine', 'qmp', 'qemu', 'guest', 'base', 'config.ts'],
  sandbox: ['confine', 'volume', 'template', 'store', 'qmp', 'qemu', 'guest', 'keys', 'base', 'config.ts'],
  callers: ['keys/reference.ts', 'base'],
  grpc: ['callers', 'base', 'config.ts'],
  api: [
    'confine/facts.ts',
    'files',
    'grpc',
    'callers',
    'sandbox',
    'volume',
    'store',
    'keys/reference.ts',
    'base',
    'config.ts',
  ],
  containerd: ['grpc', 'callers', 'api/convert.ts', 'relay', 'sandbox', 'volume', 'guest', 'base', 'config.ts'],
  relay: ['grpc', 'base'],
  cli: ['grpc/generated', 'grpc/schema.ts', 'doctor/finding.ts', 'volume/source/registry.ts', 'base'],
  doctor: ['confine', 'volume/source/registry.ts', 'qmp', 'qemu', 'base'],
};

const zones = Object.entries(mayImport).map(([folder, allowed]) => ({
  target: join(root, 'src', folder),
  from: join(root, 'src'),
  except: [folder, ...allowed].map((name) => `./${name}`),
  message: `src/${folder} may import only: ${[folder, ...allowed].join(', ')} (see ARCHITECTURE.md)`,
}));

export default defineConfig(
  { ignores: ['build/**', 'node_modules/**', 'src/grpc/generated/**', '.dependency-cruiser.js'] },
  tseslint.configs.strictTypeChecked,
  {
    files: ['**/*.ts'],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: root },
    },
    plugins: { 'import-x': importX },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones }],
      'import-x/no-default-export': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { ignoreRestSiblings: true, ignoreUsingDeclarations: true }],
      eqeqeq: 'error',
      'no-console': 'error',
      // Prettier wraps code, and leaves comments as they are.
      'max-len': ['error', { code: 1000, comments: 120, ignoreUrls: true }],
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: [
      'src/grpc/**',
      'src/api/**',
      'src/cli/**',
      'src/main.ts',
      'src/containerd/wire/**',
      'src/relay/**',
      'src/shim-main.ts',
    ],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: ['@grpc/*', 'grpc-health-check'],
              message: 'only src/grpc, src/api, src/cli, src/containerd/wire and the relay speak gRPC',
            },
          ],
        },
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', package: 'node:test', name: ['test', 'it', 'describe', 'suite', 'before', 'after'] },
          ],
        },
      ],
    },
  },
  { files: ['scripts/**/*.ts', 'src/cli/**/*.ts'], rules: { 'no-console': 'off' } },
  { files: ['eslint.config.ts'], rules: { 'import-x/no-default-export': 'off' } },
);
