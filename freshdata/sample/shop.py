"""A small shop in PostgreSQL, and people who use it: a seeded load of inserts, updates, deletes and transactions."""

import argparse
import json
import random
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from freshdata.errors import ServiceError
from freshdata.services.postgres import running_postgres
from freshdata.settings import Settings, load_settings

DATABASE = "shop"
TABLES = ("customers", "products", "orders", "order_lines")
SCHEMA = Path(__file__).with_name("shop.sql")
COUNTRIES = ("US", "DE", "FR", "JP", "BR", "NG", "IN")
WORDS = ("amber", "birch", "cobalt", "dune", "ember", "fjord", "grove", "harbor", "iris", "juniper", "küste", "月")
TIERS = ("basic", "silver", "gold")
NEXT_STATE = {"new": "paid", "paid": "shipped", "shipped": "delivered"}
CUSTOMERS, PRODUCTS, ORDERS = 200, 100, 300
# A value this long is stored apart from its row, even when it could be compressed: the letters are random.
LONG = 3000
WRITERS = 2
SET_TIER = """update customers set tier = %s, updated_at = now()
where id = (select id from customers order by random() limit 1 for update skip locked)"""
SET_COUNTRY = SET_TIER.replace("tier = %s", "country = %s")
SET_PREFERENCE = SET_TIER.replace("tier = %s", "preferences = preferences || %s")
ADD_TAG = SET_TIER.replace("tier = %s", "tags = array_append(tags, %s)")
SET_CREDIT = SET_TIER.replace("tier = %s", "credit_limit = %s")
NEW_CUSTOMER = """insert into customers (uid, email, name, country, born, credit_limit, preferences, tags)
values (%s, %s, %s, %s, %s, %s, %s, %s)"""
LEAVE = """delete from customers where id in (
  select id from customers c where not exists (select from orders o where o.customer_id = c.id)
  order by random() limit 2 for update skip locked)"""
NEW_PRODUCT = """insert into products
(sku, name, description, price, weight_kg, stock, attributes, sizes, thumbnail, sold_from)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"""
CHANGE_PRICES = """update products set price = round(price * %s, 2), updated_at = now()
where sku in (select sku from products order by random() limit %s for update skip locked)"""
RENUMBER = """update products set sku = %s
where sku = (select sku from products order by random() limit 1 for update skip locked)"""
NEW_ORDER = """insert into orders (customer_id, total, ship_to, note, deliver_at)
values (%s, %s, %s, %s, %s) returning id"""
DELETE_ORDER = """delete from orders
where id = (select id from orders order by random() limit 1 for update skip locked)"""


def shop_address(settings: Settings) -> str:
    """``postgresql://`` address of the shop on the instance's own server.

    Raises:
        ServiceError: the server does not run.
    """
    address = running_postgres(settings)
    if address is None:
        raise ServiceError(
            "postgres", f"No PostgreSQL runs for {settings.home}.", remedy="Start it with `freshdata up --with cdc`."
        )
    return f"{address}/{DATABASE}"


def create_shop(settings: Settings, *, seed: int = 7) -> None:
    """Create the shop's database with its first rows, unless it is there.

    Raises:
        ServiceError: the server does not run.
    """
    import psycopg2

    address = shop_address(settings)
    with closing(psycopg2.connect(address.removesuffix(DATABASE) + "postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if not cursor.fetchone():
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    with closing(psycopg2.connect(address)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.order_lines')")
        if cursor.fetchone()[0] is None:  # All or nothing: one transaction.
            cursor.execute(SCHEMA.read_text())
            people = People(cursor, random.Random(seed))  # noqa: S311 (a sample, not a secret)
            for count, act in ((CUSTOMERS, people.join), (PRODUCTS, people.list_product), (ORDERS, people.order)):
                for _ in range(count):
                    act()


def copy_models(settings: Settings) -> None:
    """Put the shop's Gold models into the project, where they are missing; Silver's follow from the contracts."""
    example = settings.project / "examples" / "shop" / "sqlmesh_models"
    for path in example.rglob("*.*"):
        target = settings.working_models_dir / path.relative_to(example)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


class People:
    """What people do in a shop, each a method that runs in the transaction of its cursor.

    Attributes:
        done: Statements by kind, and transactions by their end.
    """

    def __init__(self, cursor: Any, chance: random.Random) -> None:
        self._cursor = cursor
        self._chance = chance
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """One transaction's worth of work, taken by chance."""
        acts: dict[Callable[[], None], int] = {
            self.order: 30,
            self.move_order: 26,
            self.change_customer: 12,
            self.join: 8,
            self.change_price: 10,
            self.list_product: 3,
            self.delete_order: 6,
            self.leave: 2,
            self.renumber_product: 1,
            self.change_mind: 2,
        }
        self._chance.choices(list(acts), list(acts.values()))[0]()

    def join(self) -> None:
        """A new customer."""
        name = f"{self._word()} {self._word()}".title()
        self._run(
            NEW_CUSTOMER,
            uuid.UUID(int=self._chance.getrandbits(128), version=4).hex,
            f"{self._word()}{self._chance.randrange(10**6)}@shop.example",
            name,
            self._chance.choice(COUNTRIES),
            self._maybe(date(1950, 1, 1) + timedelta(self._chance.randrange(20_000))),
            self._maybe(Decimal(self._chance.randrange(100_000)) / 100),
            json.dumps({"newsletter": self._chance.random() < 0.5, "color": self._word()}),
            [self._word() for _ in range(self._chance.randrange(4))],
        )

    def change_customer(self) -> None:
        """A customer rises, moves or changes what they like."""
        statement, value = self._chance.choice(
            [
                (SET_TIER, self._chance.choice(TIERS)),
                (SET_COUNTRY, self._chance.choice(COUNTRIES)),
                (SET_PREFERENCE, json.dumps({self._word(): self._chance.randrange(100)})),
                (ADD_TAG, self._word()),
                (SET_CREDIT, self._maybe(Decimal(self._chance.randrange(100_000)) / 100)),
            ]
        )
        self._run(statement, value)

    def leave(self) -> None:
        """Customers without orders are removed."""
        self._run(LEAVE)

    def list_product(self) -> None:
        """A new product, with a picture and a long description now and then."""
        self._run(
            NEW_PRODUCT,
            self._sku(),
            f"{self._word()} {self._word()}",
            self._maybe(self._letters(self._chance.choice((40, LONG)))),
            Decimal(self._chance.randrange(100, 50_000)) / 100,
            self._maybe(self._chance.random() * 10),
            self._chance.randrange(1000),
            self._maybe(json.dumps({"color": self._word(), "fit": [1, 2.5, None]})),
            self._maybe([self._chance.randrange(36, 48) for _ in range(3)]),
            self._maybe(self._chance.randbytes(self._chance.choice((16, LONG)))),
            self._maybe(f"{self._chance.randrange(24):02}:30:00.25"),
        )

    def change_price(self) -> None:
        """Several products' prices move in one statement; their descriptions are not touched."""
        self._run(
            CHANGE_PRICES,
            Decimal(self._chance.choice(("0.9", "1.05", "1.1"))),
            self._chance.randrange(1, 6),
        )

    def renumber_product(self) -> None:
        """A product gets another number: its primary key, and the lines of orders that name it."""
        self._run(RENUMBER, self._sku())

    def order(self) -> None:
        """An order of several lines, and the stock that goes: one transaction."""
        self._cursor.execute("select id from customers order by random() limit 1 for share skip locked")
        customer = self._cursor.fetchone()
        count = self._chance.randrange(1, 6)
        self._cursor.execute(
            "select sku, price from products order by random() limit %s for update skip locked", (count,)
        )
        products = self._cursor.fetchall()
        if not customer or not products:
            return
        quantities = [self._chance.randrange(1, 5) for _ in products]
        total = sum(price * quantity for (_, price), quantity in zip(products, quantities, strict=True))
        self._run(
            NEW_ORDER,
            customer[0],
            total,
            self._maybe(json.dumps({"street": self._word(), "zip": str(self._chance.randrange(10**5))})),
            self._maybe(self._letters(self._chance.choice((30, LONG)))),
            self._maybe(datetime(2026, 1, 1) + timedelta(minutes=self._chance.randrange(500_000))),  # noqa: DTZ001
        )
        (number,) = self._cursor.fetchone()
        for line, ((sku, price), quantity) in enumerate(zip(products, quantities, strict=True), 1):
            self._run(
                "insert into order_lines values (%s, %s, %s, %s, %s, %s)",
                *(number, line, sku, quantity, price, self._maybe(self._chance.choice((0.1, 0.25)))),
            )
            self._run("update products set stock = stock - %s where sku = %s", quantity, sku)

    def move_order(self) -> None:
        """An order goes on; its note is not touched."""
        self._cursor.execute("select id, state from orders order by random() limit 1 for update skip locked")
        found = self._cursor.fetchone()
        if found:
            state = "cancelled" if self._chance.random() < 0.05 else NEXT_STATE.get(found[1], found[1])
            self._run("update orders set state = %s, updated_at = now() where id = %s", state, found[0])

    def delete_order(self) -> None:
        """An order is removed with its lines."""
        self._run(DELETE_ORDER)

    def change_mind(self) -> None:
        """An order that is rolled back: nothing of it may be seen anywhere."""
        self.order()
        self._cursor.connection.rollback()
        self.done["rolled back"] += 1

    def _run(self, statement: str, *values: Any) -> None:
        self._cursor.execute(statement, values)
        self.done[statement.split(maxsplit=1)[0]] += self._cursor.rowcount

    def _maybe(self, value: Any) -> Any:
        return value if self._chance.random() < 0.8 else None

    def _word(self) -> str:
        return self._chance.choice(WORDS)

    def _sku(self) -> str:
        return f"{self._chance.choice('ABCDEF')}-{self._chance.randrange(10**8):08}"

    def _letters(self, count: int) -> str:
        return self._chance.randbytes(count // 2 + 1).hex()[:count]


def use_shop(
    address: str,
    *,
    rate: float,
    stop: threading.Event,
    seconds: float | None = None,
    seed: int = 7,
    writers: int = WRITERS,
    progress: Callable[[Counter[str]], None] = lambda _: None,
) -> Counter[str]:
    """Have people use the shop until told to stop; a database that goes away is awaited.

    Args:
        address: The database.
        rate: Transactions a second of all writers.
        stop: Ends it.
        seconds: Ends it too.
        seed: What people do follows from it.
        writers: How many act at once.
        progress: Called now and then with what has been done.

    Returns:
        Rows inserted, updated and deleted by statements, and transactions.
    """
    done: Counter[str] = Counter()
    lock = threading.Lock()

    def report(what: Counter[str]) -> None:
        with lock:
            done.update(what)
            progress(done)

    deadline = time.monotonic() + seconds if seconds else float("inf")
    workers = [
        _Writer(address, f"{seed}-{number}", rate / writers, stop, deadline, report) for number in range(writers)
    ]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


@dataclass(frozen=True)
class _Writer:
    address: str
    seed: str
    rate: float
    stop: threading.Event
    deadline: float
    report: Callable[[Counter[str]], None]

    def run(self) -> None:
        """Act at the rate until told to stop."""
        import psycopg2

        chance = random.Random(self.seed)  # noqa: S311 (a sample, not a secret)
        while not self._ended():
            try:
                with closing(psycopg2.connect(self.address, connect_timeout=5)) as connection:
                    self._work(connection, chance)
            except psycopg2.OperationalError:
                self.stop.wait(0.5)

    def _work(self, connection: Any, chance: random.Random) -> None:
        from psycopg2 import IntegrityError
        from psycopg2.errors import DeadlockDetected

        begun, count = time.monotonic(), 0
        with connection.cursor() as cursor:
            cursor.execute("select setseed(%s)", (chance.random(),))
            while not self.stop.wait(max(0.0, begun + count / self.rate - time.monotonic())) and not self._ended():
                count += 1
                people = People(cursor, chance)
                try:
                    people.act()
                    connection.commit()
                except (DeadlockDetected, IntegrityError):
                    connection.rollback()
                    people.done = Counter({"given up": 1})
                self.report(people.done + Counter({"transactions": 1}))

    def _ended(self) -> bool:
        return self.stop.is_set() or time.monotonic() >= self.deadline


def main() -> None:
    """The load as a process: ``python -m freshdata.sample.shop --rate 10``."""
    parser = argparse.ArgumentParser(description="Use the shop until stopped.")
    parser.add_argument("--rate", type=float, default=10, help="transactions a second")
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).timestamp()))
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    use_shop(shop_address(load_settings()), rate=arguments.rate, seed=arguments.seed, stop=stop)


if __name__ == "__main__":
    main()
