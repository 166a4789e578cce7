import { join } from 'node:path';
import importX from 'eslint-plugin-import-x';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

const root = import.meta.dirname;

/** The third column of the table in ARCHITECTURE.md: which folder of src/ may import which. */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  keys: ['base'],
  qmp: ['base'],
  qemu: ['qmp', 'base'],
  guest: ['base'],
  device: ['base', 'keys/reference.ts'],
  // config.ts: for the type of the options only; reading them is main.ts's.
  sandbox: ['device', 'qmp', 'qemu', 'guest', 'keys', 'base', 'config.ts'],
  rpc: ['sandbox', 'device', 'keys/reference.ts', 'base', 'config.ts'],
  containerd: ['rpc', 'relay', 'sandbox', 'guest', 'device', 'base', 'config.ts'],
  relay: ['rpc/schema.ts', 'rpc/generated', 'base'],
  cli: ['rpc/generated', 'rpc/schema.ts', 'doctor/finding.ts', 'base'],
  doctor: ['qmp', 'qemu', 'base'],
};

const zones = Object.entries(mayImport).map(([folder, allowed]) => ({
  target: join(root, 'src', folder),
  from: join(root, 'src'),
  except: [folder, ...allowed].map((name) => `./${name}`),
  message: `src/${folder} may import only: ${[folder, ...allowed].join(', ')} (see ARCHITECTURE.md)`,
}));

export default defineConfig(
  { ignores: ['build/**', 'node_modules/**', 'src/rpc/generated/**'] },
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
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/rpc/**', 'src/cli/**', 'src/main.ts', 'src/containerd/wire/**', 'src/relay/**', 'src/shim-main.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: ['@grpc/*', 'grpc-health-check'],
              message: 'only src/rpc, src/cli, src/containerd/wire and the relay speak gRPC',
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
