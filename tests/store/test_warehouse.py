"""The warehouse with real files, real processes and real trouble."""

import struct
import subprocess
import sys
import threading
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from hindsight.errors import WarehouseLocked, WarehouseNewer, WarehouseUnusable
from hindsight.store.warehouse import VERSION, Warehouse

OPEN = """
import sys
from pathlib import Path
from hindsight.store.warehouse import Warehouse
warehouse = Warehouse(path=Path(sys.argv[1]), lock_timeout_seconds=30)
DAY = "insert into learned_until select 'm', 'simulated', 'ETH/USDT', '1m', now(), now() from range($rows)"
def write(con, rows):
    con.execute(DAY, {"rows": rows})
"""
WRITE_MANY_TIMES = (
    OPEN
    + """
for _ in range(15):
    with warehouse.writing() as con:
        write(con, 1)
"""
)
WRITE_AND_HANG = (
    OPEN
    + """
with warehouse.writing() as con:
    write(con, 1000)
    print("written", flush=True)
    sys.stdin.read()
"""
)
FORK = (
    OPEN
    + """
import os
with warehouse.writing() as con:
    write(con, 1)
pid = os.fork()
if not pid:
    with warehouse.writing() as con:
        write(con, 1)
    os._exit(0)
sys.exit(os.waitpid(pid, 0)[1])
"""
)
FILL_THE_DISK = (
    OPEN
    + """
import resource
from hindsight.errors import WarehouseUnusable
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    with warehouse.writing() as con:
        con.execute("create table noise as select random() as value from range(2000000)")
except WarehouseUnusable as error:
    print(error)
"""
)
HOLD_WITHOUT_THE_LOCK_FILE = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def run(code: str, path: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def count(warehouse: Warehouse) -> int:
    with warehouse.reading() as con:
        return con.execute("select count(*) from learned_until").fetchall()[0][0]


def write_one(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("insert into learned_until values ('m', 'simulated', 'ETH/USDT', '1m', now(), now())")


def test_a_missing_warehouse_is_made_with_every_table(warehouse: Warehouse):
    with warehouse.reading() as con:
        tables = {name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()}
        assert con.execute("select version from warehouse_version").fetchall() == [(VERSION,)]
    declared = files("hindsight.store").joinpath("schema.sql").read_text()
    assert tables == {line.split()[5] for line in declared.splitlines() if line.startswith("create table")}


@pytest.mark.parametrize("way", [pytest.param("reading", id="reading"), pytest.param("writing", id="writing")])
def test_times_are_utc_on_every_connection(warehouse: Warehouse, way: str):
    with getattr(warehouse, way)() as con:
        assert con.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
        text = con.execute("select (timestamptz '2024-07-01 12:00:00+02')::varchar").fetchall()
        assert text == [("2024-07-01 10:00:00+00",)]


def test_reading_refuses_to_write(warehouse: Warehouse):
    with pytest.raises(duckdb.InvalidInputException, match="read-only"), warehouse.reading() as con:
        write_one(con)


def test_an_exception_rolls_everything_back_and_passes_through(warehouse: Warehouse):
    with warehouse.writing() as con:
        write_one(con)

    def fail(con: duckdb.DuckDBPyConnection):
        write_one(con)
        raise KeyError

    with pytest.raises(KeyError), warehouse.writing() as con:
        fail(con)
    assert count(warehouse) == 1


def test_a_wrong_query_is_not_taken_for_a_broken_file(warehouse: Warehouse):
    with pytest.raises(duckdb.CatalogException), warehouse.reading() as con:
        con.execute("select * from no_such_table")


def test_two_processes_that_write_at_once_both_land(warehouse: Warehouse):
    with run(WRITE_MANY_TIMES, warehouse.path) as one, run(WRITE_MANY_TIMES, warehouse.path) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert count(warehouse) == 30


def test_threads_that_write_at_once_all_land(warehouse: Warehouse):
    def write():
        for _ in range(5):
            with warehouse.writing() as con:
                write_one(con)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count(warehouse) == 15


def test_kill_9_inside_a_write_leaves_what_was_there_before(warehouse: Warehouse):
    with warehouse.writing() as con:
        write_one(con)
    with run(WRITE_AND_HANG, warehouse.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert count(warehouse) == 1
    with warehouse.writing() as con:
        write_one(con)
    assert count(warehouse) == 2


def test_reading_and_writing_do_not_nest(warehouse: Warehouse):
    with pytest.raises(RuntimeError, match="do not nest"), warehouse.writing(), warehouse.reading():
        pass


def test_between_turns_the_file_is_free_and_whole_for_a_program_that_knows_nothing_of_our_lock(warehouse: Warehouse):
    with warehouse.writing() as con:
        write_one(con)
    with run(HOLD_WITHOUT_THE_LOCK_FILE, warehouse.path) as shell:
        assert shell.stdout is not None
        assert shell.stdin is not None
        assert shell.stdout.readline() == "held\n"
        shell.stdin.close()
    assert not warehouse.path.with_name(warehouse.path.name + ".wal").exists()
    assert count(warehouse) == 1


def test_turns_at_two_warehouses_side_by_side_do_not_meet(warehouse: Warehouse, tmp_path: Path):
    other = Warehouse(path=tmp_path / "other.duckdb", lock_timeout_seconds=1)
    with warehouse.writing() as con, other.writing() as elsewhere:
        write_one(con)
        assert elsewhere.execute("select count(*) from learned_until").fetchall() == [(0,)]
    assert (count(warehouse), count(other)) == (1, 0)


def test_a_process_that_is_forked_takes_turns_of_its_own(warehouse: Warehouse):
    with run(FORK, warehouse.path) as process:
        assert process.wait(60) == 0
    assert count(warehouse) == 2


def test_a_turn_that_ends_in_an_error_of_duckdb_leaves_the_next_one_well(warehouse: Warehouse):
    def fail(con: duckdb.DuckDBPyConnection):
        write_one(con)
        con.execute("select 'one'::integer").fetchall()

    for _ in range(2):
        with pytest.raises(duckdb.ConversionException), warehouse.writing() as con:
            fail(con)
    assert count(warehouse) == 0


def test_a_foreign_program_that_holds_the_file_is_named_and_waited_for(warehouse: Warehouse):
    assert count(warehouse) == 0
    with run(HOLD_WITHOUT_THE_LOCK_FILE, warehouse.path) as shell:
        assert shell.stdout is not None
        assert shell.stdin is not None
        assert shell.stdout.readline() == "held\n"
        with pytest.raises(WarehouseLocked, match=rf"PID {shell.pid}(.|\n)*close that program"), warehouse.writing():
            pass
        with pytest.raises(WarehouseLocked), warehouse.reading():
            pass
        patient = Warehouse(path=warehouse.path, lock_timeout_seconds=60)
        leave = threading.Timer(0.05, shell.stdin.close)
        leave.start()
        with patient.writing() as con:
            write_one(con)
        leave.join()
    assert count(warehouse) == 1


def damaged(content: bytearray) -> bytes:
    for place in range(3 * 4096, len(content), 97):
        content[place] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: b"not a database " * 1000, id="another kind of file"),
        pytest.param(lambda content: b"", id="empty file"),
        pytest.param(lambda content: bytes(content[: len(content) // 2]), id="truncated"),
        pytest.param(damaged, id="flipped bits"),
    ],
)
def test_a_file_that_is_not_whole_is_unusable_and_left_as_it_is(warehouse: Warehouse, spoil):
    with warehouse.writing() as con:
        write_one(con)
    spoiled = spoil(bytearray(warehouse.path.read_bytes()))
    warehouse.path.write_bytes(spoiled)
    with pytest.raises(WarehouseUnusable, match=r"hindsight\.duckdb(.|\n)*put back a copy"), warehouse.reading():
        pass
    with pytest.raises(WarehouseUnusable), warehouse.writing():
        pass
    assert warehouse.path.read_bytes() == spoiled


def test_a_warehouse_of_a_newer_hindsight_is_refused(warehouse: Warehouse):
    with warehouse.writing() as con:
        con.execute("update warehouse_version set version = $newer", {"newer": VERSION + 1})
    for way in (warehouse.reading, warehouse.writing):
        with pytest.raises(WarehouseNewer, match=rf"version {VERSION + 1}.*update Hindsight"), way():
            pass


def test_a_warehouse_of_an_older_hindsight_gets_what_it_lacks_and_keeps_what_it_has(warehouse: Warehouse):
    with warehouse.writing() as con:
        write_one(con)
        con.execute("drop macro table pivot_books")
        con.execute("drop table order_book")
        con.execute("update warehouse_version set version = 1")
    assert count(warehouse) == 1
    with warehouse.reading() as con:
        assert con.execute("select count(*) from order_book").fetchall() == [(0,)]
        assert con.execute("select count(*) from pivot_books(timestamptz '2000-01-01', now())").fetchall() == [(0,)]
        assert con.execute("select version from warehouse_version").fetchall() == [(VERSION,)]


def test_the_checkpoints_of_an_older_hindsight_are_ranked_by_the_only_metric_there_was(warehouse: Warehouse):
    with warehouse.writing() as con:
        con.execute("drop table checkpoints")
        con.execute("create table checkpoints (checkpoint_id integer not null, prequential_loss float)")
        con.execute("insert into checkpoints values (10, 2.5), (20, null)")
        con.execute("update warehouse_version set version = 2")
    for _ in range(2):
        with warehouse.reading() as con:
            found = con.sql("select checkpoint_id, metric, direction, metric_value from checkpoints order by 1")
            assert found.fetchall() == [(10, "log loss", "lower", 2.5), (20, "log loss", "lower", None)]
            assert "prequential_loss" not in con.sql("from checkpoints").columns


def test_a_home_of_version_4_gets_a_table_of_failures(warehouse: Warehouse):
    with warehouse.writing() as con:
        con.execute("drop table model_failures")
        con.execute("update warehouse_version set version = 4")
    with warehouse.reading() as con:
        assert con.execute("select count(*) from model_failures").fetchall() == [(0,)]
        assert con.execute("select version from warehouse_version").fetchall() == [(VERSION,)]


def test_a_file_of_a_newer_duckdb_is_refused(warehouse: Warehouse):
    assert count(warehouse) == 0
    content = bytearray(warehouse.path.read_bytes())
    content[12:20] = struct.pack("<Q", 99_999)  # storage version
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", content[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    content[:8] = struct.pack("<Q", checksum)
    warehouse.path.write_bytes(content)
    with pytest.raises(WarehouseNewer, match=r"newer DuckDB(.|\n)*install that version"), warehouse.writing():
        pass


def test_a_database_without_our_tables_gets_them(warehouse: Warehouse):
    warehouse.path.parent.mkdir()
    with closing(duckdb.connect(str(warehouse.path))) as con:
        con.execute("create table notes as select 1 as note")
    assert count(warehouse) == 0
    with warehouse.reading() as con:
        assert con.execute("select note from notes").fetchall() == [(1,)]


def test_a_full_disk_is_named_and_costs_nothing_that_stood_there(warehouse: Warehouse):
    with warehouse.writing() as con:
        write_one(con)
    with run(FILL_THE_DISK, warehouse.path) as process:
        said, _ = process.communicate(timeout=60)
    assert "the disk has no room for the warehouse" in said
    assert "free some space" in said
    assert count(warehouse) == 1
    with warehouse.writing() as con:
        write_one(con)
    assert count(warehouse) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "home").write_text("a file stands where the folder should be")
    warehouse = Warehouse(path=tmp_path / "home" / "hindsight.duckdb", lock_timeout_seconds=1)
    with pytest.raises(WarehouseUnusable, match="cannot be written"), warehouse.writing():
        pass


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_lock_timeout_that_makes_no_sense_is_refused(tmp_path: Path, seconds: float):
    with pytest.raises(ValueError, match="lock_timeout_seconds"):
        Warehouse(path=tmp_path / "w.duckdb", lock_timeout_seconds=seconds)
