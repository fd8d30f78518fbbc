"""From files to files: estimate, parcellate, train, decode, evaluate as plain functions, and what decides whether one runs."""
