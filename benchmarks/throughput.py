"""Both throughput benchmarks, one after the other: the data pipeline, then training in float32 and bfloat16.

python benchmarks/throughput.py
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS = (
    ("pipeline_throughput.py",),
    ("training_throughput.py", "--precision", "float32"),
    ("training_throughput.py", "--precision", "bfloat16"),
)

if __name__ == "__main__":
    for script, *arguments in RUNS:
        subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)
