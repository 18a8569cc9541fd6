from pathlib import Path

from raykd.config.data import DemoSource
from raykd.data.demo import write_demo_corpus
from raykd.data.demo.corpus import plan_shards, shard_table


def test_ray_writes_what_one_process_makes(ray_local: None, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    source = DemoSource(languages=("pl", "en"), hours=0.005)
    splits = write_demo_corpus(source, str(tmp_path))
    for shard in plan_shards(source):
        table = shard_table(source, shard)
        assert pq.read_table(tmp_path / shard.name).equals(table)
        assert splits[shard.split]["utterances"] == len(table)
