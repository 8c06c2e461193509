import type { CodegenConfig } from '@graphql-codegen/cli';
import { addTypenameSelectionDocumentTransform } from '@graphql-codegen/client-preset';

const config: CodegenConfig = {
  // From the API of a development server, or the file that a release comes with.
  schema: 'schema.graphql',
  documents: ['src/**/*.ts', '!src/gql/**'],
  generates: {
    'src/gql/': {
      preset: 'client',
      // The caches of Apollo Client and urql need `__typename`: also where a document is persisted.
      documentTransforms: [addTypenameSelectionDocumentTransform],
      presetConfig: {
        fragmentMasking: false,
        // Writes src/gql/persisted-documents.json, and its hashes into the documents.
        persistedDocuments: { hashAlgorithm: 'sha256' },
      },
      config: {
        strictScalars: true,
        useTypeImports: true,
        enumsAsTypes: true,
        scalars: {
          // Text, because a number of JavaScript cannot hold an exact amount.
          Decimal: 'string',
          DateTime: 'string',
          BigInt: 'number',
          JSON: 'unknown',
        },
      },
    },
    // Which types a union or an interface can be, for the cache of Apollo Client.
    'src/gql/possible-types.ts': { plugins: ['fragment-matcher'] },
  },
};

export default config;
