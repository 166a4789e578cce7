/**
 * Import circles, with types counted: eslint's import-x/no-cycle leaves type imports out, and a circle of types ties files
 * together as much as one of values. Which folder may import which is in eslint.config.ts.
 */
export default {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'Two files that need each other are one idea, or one of them needs an interface of its own.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^src/grpc/generated/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
  },
};
