"""A program: how many threads the kernels use alone, and in each of two workers of joblib."""

import json

import joblib

import cyconv

alone = cyconv.get_num_threads()
workers = joblib.Parallel(n_jobs=2)(joblib.delayed(cyconv.get_num_threads)() for _ in range(2))
print(json.dumps({"alone": alone, "workers": workers}))
