"""Spark in local mode on webhdfs://: CSV and Parquet, partitions, overwriting, appending."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..support.cluster import Cluster

pytest.importorskip("pyspark", reason="`make interop` installs what this needs")
pytestmark = pytest.mark.filterwarnings("default")
ROWS = [(n, f"name {n % 7}", n * 0.5, ("north", "south", "süd/west")[n % 3]) for n in range(2_000)]
COLUMNS = ["number", "name", "value", "region"]


@pytest.fixture(scope="module")
def spark(cluster: Cluster) -> Iterator[Any]:
    from pyspark.sql import SparkSession

    url = cluster.url.replace("http://", "webhdfs://")
    made = (
        SparkSession.builder.master("local[2]")
        .config("spark.hadoop.fs.defaultFS", url)
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "512m")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    made.sparkContext.setLogLevel("ERROR")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def frame(spark: Any) -> Any:
    return spark.createDataFrame(ROWS, COLUMNS).repartition(3).cache()


def rows(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.select(COLUMNS).collect())


def names(spark: Any, path: str) -> list[str]:
    jvm = spark._jvm
    files = jvm.org.apache.hadoop.fs.FileSystem.get(spark._jsc.hadoopConfiguration())
    listed = files.listStatus(jvm.org.apache.hadoop.fs.Path(path))
    return [status.getPath().getName() for status in listed]


def test_csv(spark: Any, frame: Any) -> None:
    frame.write.csv("/spark/csv", header=True)
    schema = "number INT, name STRING, value DOUBLE, region STRING"
    assert rows(spark.read.csv("/spark/csv", header=True, schema=schema)) == sorted(ROWS)
    assert "_SUCCESS" in names(spark, "/spark/csv")
    assert "_temporary" not in names(spark, "/spark/csv")
    for kept in (ROWS, ROWS[:50]):  # the second replaces the first
        part = frame.where(f"number < {len(kept)}")
        part.write.partitionBy("region").mode("overwrite").csv("/spark/parts", header=True)
        assert "region=south" in names(spark, "/spark/parts")
        read = spark.read.csv("/spark/parts", header=True, schema=schema)
        assert rows(read) == sorted(kept)
        south = [row for row in kept if row[3] == "south"]
        assert rows(read.where("region = 'south'")) == sorted(south)


def test_parquet_with_partitions(spark: Any, frame: Any) -> None:
    frame.write.partitionBy("region").parquet("/spark/parquet")
    assert [n for n in names(spark, "/spark/parquet") if n.startswith("region=")] == [
        *("region=north", "region=south", "region=süd%2Fwest"),
    ]
    read = spark.read.parquet("/spark/parquet")
    assert rows(read) == sorted(ROWS)
    pruned = read.where("region = 'süd/west' AND number < 100")
    assert rows(pruned) == sorted(r for r in ROWS if r[3] == "süd/west" and r[0] < 100)


def test_overwriting_and_appending(spark: Any, frame: Any) -> None:
    frame.write.parquet("/spark/again")
    with pytest.raises(Exception, match="already exists"):
        frame.write.parquet("/spark/again")
    frame.where("number < 10").write.mode("overwrite").parquet("/spark/again")
    assert rows(spark.read.parquet("/spark/again")) == sorted(ROWS[:10])
    frame.where("number >= 1990").write.mode("append").parquet("/spark/again")
    assert rows(spark.read.parquet("/spark/again")) == sorted(ROWS[:10] + ROWS[1990:])


def test_overwriting_one_partition(spark: Any, frame: Any) -> None:
    spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
    frame.write.partitionBy("region").parquet("/spark/dynamic")
    frame.where("region = 'north' AND number < 30").write.mode("overwrite").partitionBy(
        "region"
    ).parquet("/spark/dynamic")
    left = [r for r in ROWS if r[3] != "north" or r[0] < 30]
    assert rows(spark.read.parquet("/spark/dynamic")) == sorted(left)


def test_text_in_many_splits(spark: Any) -> None:
    """A file is read in ranges by several tasks."""
    context = spark.sparkContext
    context.parallelize([f"line {n}" for n in range(100_000)], 1).saveAsTextFile("/spark/text")
    assert context.textFile("/spark/text", 8).count() == 100_000


def test_streaming_with_a_checkpoint(spark: Any, frame: Any) -> None:
    """Checkpoints rename onto missing names; the second run goes on where the first ended."""
    frame.where("number < 100").write.parquet("/spark/source")

    def run() -> None:
        stream = spark.readStream.schema(frame.schema).parquet("/spark/source")
        query = (
            stream.writeStream.format("parquet")
            .option("checkpointLocation", "/spark/checkpoint")
            .trigger(availableNow=True)
            .start("/spark/sink")
        )
        query.awaitTermination()

    run()
    frame.where("number >= 1900").write.mode("append").parquet("/spark/source")
    run()
    assert rows(spark.read.parquet("/spark/sink")) == sorted(ROWS[:100] + ROWS[1900:])
